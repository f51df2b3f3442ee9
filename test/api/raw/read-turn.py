"""Starts a turn, loses its connection, resumes, and asks again after the end. Python's standard library only."""

import http.client
import json
import sys
from urllib.parse import urlsplit

url, key, turn_id = sys.argv[1:]
address = urlsplit(url).netloc
headers = {"Authorization": f"Bearer {key}"}
seen = []


def read(response, most):
    """Reads events until the end of the turn, or until `most` events."""
    event = {}
    for raw in response:
        line = raw.decode("utf-8").rstrip("\n")
        if line == "":
            if "data" in event:
                seen.append(event)
                if event["event"] == "enginehouse.end" or len(seen) >= most:
                    return
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


connection = http.client.HTTPConnection(address)
body = json.dumps({"message": "hi", "task_id": turn_id})
start = {**headers, "Content-Type": "application/json", "Idempotency-Key": turn_id}
connection.request("POST", "/v1/engines/ada/execute", body, start)
response = connection.getresponse()
statuses = [response.status]
read(response, most=2)
connection.close()

path = f"/v1/turns/{response.getheader('X-Turn-Id')}/events"
while True:
    connection = http.client.HTTPConnection(address)
    connection.request("GET", path, headers={**headers, "Last-Event-ID": seen[-1]["id"]})
    response = connection.getresponse()
    statuses.append(response.status)
    if response.status == 204:
        break
    read(response, most=100)
    connection.close()

print(json.dumps({"statuses": statuses, "seen": seen}))
