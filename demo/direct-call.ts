/** Calls an engine as a product may: without us in between. Returns the HTTP status. */
export async function callDirectly(engineUrl: string | null, key: string): Promise<number> {
  if (engineUrl === null) throw new Error("the engine has no address");
  const response = await fetch(`${engineUrl}/rpc`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-engine-key": key },
    body: JSON.stringify({ method: "quota_state", params: {} }),
  });
  await response.body?.cancel();
  return response.status;
}
