/** What the tests leave in a page, to look at it later. */
interface Window {
  [name: string]: any;
}
