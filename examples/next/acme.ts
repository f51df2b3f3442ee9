import { createClient } from "@enginehouse/client";

const { ENGINEHOUSE_URL: url = "http://127.0.0.1:8080", PLATFORM_KEY: key = "not set" } = process.env;
export const acme = createClient({ url, key });
// From the product's own session, never from the request.
export const userId = "ada";
