import "../cli/quick-imports.ts";
import { exitIfAnswered } from "../cli/command-line.ts";
import { SETTINGS } from "./config/settings.ts";
import { USAGE } from "./config/usage.ts";

/* `npm start`. Usage and errors of the command line come before the program is loaded. */

exitIfAnswered({ usage: USAGE, settings: Object.values(SETTINGS).map(({ name }) => name) });
await import("./serve.ts");
