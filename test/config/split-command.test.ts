import { expect, test } from "vitest";
import { splitCommand } from "../../server/config/split-command.ts";

test.each<[string, string[]]>([
  ["node engine.ts", ["node", "engine.ts"]],
  ["  node   --x=1\tengine.ts ", ["node", "--x=1", "engine.ts"]],
  [`"/opt/my engine/run" --name 'it is "so"'`, ["/opt/my engine/run", "--name", 'it is "so"']],
  [String.raw`run a\ b \"c\" "d\"e"`, ["run", "a b", '"c"', 'd"e']],
  [`run '$HOME' '*.ts' 'a;b'`, ["run", "$HOME", "*.ts", "a;b"]],
  [`run ''`, ["run", ""]],
])("%s is split as a shell splits it", (text, words) => {
  expect(splitCommand(text)).toEqual(words);
});

test.each([
  ["run a && b", "operator"],
  ["run a; b", "operator"],
  ["run | tee log", "operator"],
  ["run > log", "operator"],
  ["run &", "operator"],
  ["run *.ts", "pattern"],
  ["run $HOME", "variable"],
  [`run "$HOME"`, "variable"],
  ["run $(ls)", ""],
  ["run `ls`", "substitution"],
  ["run # now", "comment"],
  ["run 'a", "quote"],
  [`run "a`, "quote"],
  ["KEY=1 run", "assignment"],
  ["''", "no program"],
  ["   ", "no program"],
])("%s is refused, because it needs a shell", (text, why) => {
  expect(() => splitCommand(text)).toThrow(why);
});
