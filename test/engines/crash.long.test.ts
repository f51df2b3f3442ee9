import { testCrashes } from "./test-crashes.ts";

testCrashes(["provision", "start", "restart", "destroy", "rotate"]);
