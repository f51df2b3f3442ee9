/** Calls an engine without the service in between, as a product may. Returns the HTTP status. */
export async function callDirectly(engineUrl: string | null, key: string): Promise<number> {
  if (engineUrl === null) throw new Error("the engine has no URL");
  const response = await fetch(`${engineUrl}/rpc`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-engine-key": key },
    body: JSON.stringify({ method: "quota_state", params: {} }),
  });
  await response.body?.cancel();
  return response.status;
}
