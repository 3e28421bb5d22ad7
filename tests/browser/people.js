/** Tests with people on pages of their own. */

/** @import { Browser, BrowserContextOptions } from "playwright-core" */
/** @import { Instance } from "./house.js" */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Person } from "./person.js";

/**
 * Returns a function that makes a test of a story. People arrive in the story, and must have nothing to complain about
 * when it is over. `browser` returns the browser, which starts after the tests are made.
 * @typedef {(instance: Instance, options?: BrowserContextOptions) => Promise<Person>} Arrives
 * @param {() => Browser} browser
 * @returns {(sentence: string, story: (arrives: Arrives) => Promise<void>) => unknown}
 */
export function testsWithPeople(browser) {
  return (sentence, story) =>
    test(sentence, { timeout: 60_000 }, async () => {
      /** @type {Person[]} */
      const everybody = [];
      /** @type {Arrives} */
      const arrives = async (instance, options) => {
        const person = await Person.at(browser(), instance, options);
        everybody.push(person);
        return person;
      };
      try {
        await story(arrives);
        for (const { complaints } of everybody) assert.deepEqual(complaints, []);
      } finally {
        await Promise.all(everybody.map(({ context }) => context.close()));
      }
    });
}
