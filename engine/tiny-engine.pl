# A whole engine of a few megabytes that boots within milliseconds, for tests with a thousand engines on one machine.
# It answers every call with its health, and /rpc with an empty result.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(
    LocalAddr => $ENV{ENGINE_HOST},
    LocalPort => $ENV{ENGINE_PORT},
    Listen    => 16,
    ReuseAddr => 1,
) or die "cannot listen on $ENV{ENGINE_PORT}: $!";
my $started = time;
$SIG{TERM} = sub { exit 0 };
$SIG{PIPE} = "IGNORE";

while (my $caller = $server->accept) {
    my $request = <$caller> // "";
    my $length = 0;
    while (my $line = <$caller>) {
        last if $line =~ /^\r?\n$/;
        $length = $1 if $line =~ /^content-length:\s*(\d+)/i;
    }
    read($caller, my $body, $length) if $length;
    my $uptime = time - $started;
    my $answer =
        $request =~ m{ /rpc }
        ? '{"result":{}}'
        : qq({"status":"ok","uptime_seconds":$uptime,"subsystems":{}});
    my $size = length $answer;
    print $caller "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: $size\r\nconnection: close\r\n\r\n$answer";
    close $caller;
}
