/** Asks axe-core what keeps people from using a page, by WCAG 2.2, levels A and AA. */

/** @import { AxeResults } from "axe-core" */
/** @import { Page } from "playwright-core" */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

/** What is wrong with the page as it is now: the rule, where it is broken, and why. @param {Page} page */
export async function barriers(page) {
  await page.evaluate(AXE);
  /** @type {AxeResults} */
  const { violations } = await page.evaluate((values) => window.axe.run({ runOnly: { type: "tag", values } }), RULES);
  const places = violations.flatMap(({ id, nodes }) => nodes.map((node) => ({ id, ...node })));
  return places.map(({ id, target, failureSummary }) => `${id} at ${target.join(" ")}: ${failureSummary.replace(/\s+/g, " ")}`);
}
