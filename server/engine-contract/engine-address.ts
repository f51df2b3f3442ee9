/** What a request needs to reach an engine. */
export interface EngineAddress {
  /** Base URL, without a trailing slash. */
  endpoint: string;
  /** The engine key in plain text. Only the `X-Engine-Key` header may carry it. */
  apiKey: string;
}
