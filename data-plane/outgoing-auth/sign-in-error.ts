// Why a sign-in goes no further: for its user in fixed words, for the log with what was seen.

export type SignInProblem =
  | "link"
  | "not_served"
  | "other_user"
  | "other_browser"
  | "used"
  | "denied"
  | "unregistered"
  | "server_down"
  | "server_answer"
  | "store_down"
  | "busy";

/** Neither the words nor `reason` have anything secret in them; `reason` may have what servers said. */
export class SignInError extends Error {
  override name = "SignInError";
  readonly problem: SignInProblem;
  /** HTTP. */
  readonly status: number;

  constructor(problem: SignInProblem, reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.problem = problem;
    this.status = statuses[problem];
  }

  /** For the user. */
  get words(): string {
    return words[this.problem];
  }
}

const statuses: Readonly<Record<SignInProblem, number>> = {
  link: 400,
  not_served: 404,
  other_user: 403,
  other_browser: 403,
  used: 400,
  denied: 403,
  unregistered: 409,
  server_down: 502,
  server_answer: 502,
  store_down: 503,
  busy: 503,
};

const words: Readonly<Record<SignInProblem, string>> = {
  link: "This link is not good, or not any more. Ask for a new one: make the call again that led you here.",
  not_served: "The server that this link is for is not here any more.",
  other_user:
    "You are not the user whom this link was made for, so nothing was changed. If somebody sent it to you, don't follow it.",
  other_browser: "This sign-in was begun in another browser, or too long ago. Begin again where you began.",
  used: "This step was taken already. If you are not signed in yet, begin again.",
  denied: "Access was denied, so you are not signed in.",
  unregistered: "The gateway is not known to the authorization server, so nobody can sign in. Tell whoever runs the gateway.",
  server_down: "The authorization server can't be reached, or can't be used. Try again later.",
  server_answer: "The authorization server did not give what was asked for. Try again, or tell whoever runs the gateway.",
  store_down: "Sign-ins can't be kept right now. Try again in a moment.",
  busy: "Too many people sign in right now. Try again in a moment.",
};
