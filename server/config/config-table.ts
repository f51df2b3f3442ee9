import { SETTINGS, type Setting } from "./settings.ts";

/** Every setting as a row of a Markdown table. */
export function toConfigTable(): string {
  const rows = Object.values(SETTINGS).map((setting) => toRow(setting as Setting<unknown>));
  return ["| name | default | takes |", "| --- | --- | --- |", ...rows].join("\n");
}

function toRow(setting: Setting<unknown>): string {
  const required = setting.requiredInProduction ? " (required in production)" : "";
  return `| \`${setting.name}\` | ${toDefault(setting)}${required} | ${escapeCell(setting.takes)} |`;
}

function toDefault(setting: Setting<unknown>): string {
  if (setting.default === undefined) return escapeCell(setting.unset ?? "none");
  const usual = setting.default === "" ? "empty" : `\`${setting.default}\``;
  return setting.productionDefault === undefined
    ? usual
    : `${usual}; \`${setting.productionDefault}\` in production`;
}

function escapeCell(text: string): string {
  return text.replaceAll("|", "\\|");
}
