import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: "./db/{schema,audit-tables,key-tables,limit-tables}.ts",
  out: "./migrations",
});
