import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: "./db/{schema,rate-windows-table}.ts",
  out: "./migrations",
});
