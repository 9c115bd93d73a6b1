// A real browser without a window, for what only a browser shows: cookies, redirects, forms that people fill in.
import { chromium, type Page } from "playwright-core";
import { programPath, whyMissing } from "./debian.ts";

export interface Browser extends AsyncDisposable {
  /** Goes there as somebody whom no site knows yet; further pages of the same visitor are `page.context().newPage()`. */
  open(url: string): Promise<Page>;
}

const program = ["chromium", "chromium"] as const;
const startMs = 30_000;
const stepMs = 10_000;

/** For the `skip` of tests that need a browser. */
export const whyNoBrowser = (): Promise<string | false> => whyMissing(...program);

/** Starts it. What a page waits for, it waits for at most 10 s. */
export async function startBrowser(): Promise<Browser> {
  const browser = await chromium.launch({
    executablePath: await programPath(...program),
    // Its sandbox is not for root, and the shared memory of containers is small.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
    timeout: startMs,
  });
  return {
    async open(url) {
      const context = await browser.newContext();
      context.setDefaultTimeout(stepMs);
      const page = await context.newPage();
      await page.goto(url);
      return page;
    },
    [Symbol.asyncDispose]: () => browser.close(),
  };
}
