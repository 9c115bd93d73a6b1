// Signs in at a test issuer as a browser would, without one: quick, for tests that care about what follows.

const stepsMax = 10;

/** Goes where the authorization URL leads, as this user, and gives the URL of the client's that it ends at, unvisited. */
export async function signIn(authorizationUrl: string, user: string): Promise<URL> {
  const { origin } = new URL(authorizationUrl);
  const cookies = new Map<string, string>();
  let url = new URL(authorizationUrl);
  let form: URLSearchParams | undefined;
  for (let step = 0; step < stepsMax; step++) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const method = form ? "POST" : "GET";
    const response = await fetch(url, { method, body: form ?? null, headers: { cookie }, redirect: "manual" });
    for (const line of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (value === "") cookies.delete(name);
      else cookies.set(name, value);
    }
    const body = await response.text();
    const location = response.headers.get("location");
    if (location !== null) {
      url = new URL(location, url);
      form = undefined;
      if (url.origin !== origin) return url;
    } else if (response.ok && form === undefined) form = new URLSearchParams({ user });
    else throw new Error(`${url} answered ${response.status}: ${body.slice(0, 500)}`);
  }
  throw new Error(`${authorizationUrl} leads nowhere within ${stepsMax} steps`);
}
