// What people see who sign in: plain pages without scripts. Everything that somebody else chose is written as text.

/** Of the page on which a sign-in begins. */
export interface Beginning {
  readonly backend: string;
  readonly virtualServer: string;
  readonly user: string;
  /** Host of the authorization server. */
  readonly server: string;
}

export function beginPage({ backend, virtualServer, user, server }: Beginning): string {
  return page(
    "Sign in",
    `<p>The server <b>${text(backend)}</b> of <b>${text(virtualServer)}</b> wants to know who you are. You will sign in at
<b>${text(server)}</b>, and whatever you allow there, clients that you use as <b>${text(user)}</b> may do at
<b>${text(backend)}</b>.</p>
<p>Go on only if you asked for this yourself just now.</p>
<form method="post"><button id="continue">Continue to ${text(server)}</button></form>`,
  );
}

export function donePage(backend: string): string {
  return page(
    "Signed in",
    `<p id="done">You are signed in at <b>${text(backend)}</b>. You can close this page and go back to where you came from.</p>`,
  );
}

export function problemPage(words: string): string {
  return page("Not signed in", `<p id="problem">${text(words)}</p>`);
}

function page(title: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${text(title)}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem; color-scheme: light dark }
b { overflow-wrap: anywhere }
button { font: inherit; padding: .5rem 1rem }
</style>
</head>
<body>
<h1>${text(title)}</h1>
${body}
</body>
</html>
`;
}

const textMax = 200;
const escapes: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** As text of a page; what can't be seen, or would change the order of what can, is left out. */
export function text(value: string): string {
  const visible = value.toWellFormed().replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "");
  const short = [...visible].slice(0, textMax).join("");
  return (short === visible ? short : `${short}…`).replace(/[&<>"']/g, (found) => escapes[found] as string);
}
