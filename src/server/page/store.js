/**
 * What outlives a reload. The tab's own state (who, where, what is not sent yet) is kept for the
 * tab; only the name and the looks are kept for the next visit. A token is never kept longer than
 * the tab.
 */

const TAB = "hubbub.tab";
const NAME = "hubbub.name";
const THEME = "hubbub.theme";

// Storage may be forbidden or full; the page works without.
function attempt(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

export function loadTab() {
  return attempt(() => JSON.parse(sessionStorage.getItem(TAB))) ?? {};
}

/** False if it could not be kept. */
export function saveTab(state) {
  return attempt(() => {
    sessionStorage.setItem(TAB, JSON.stringify(state));
    return true;
  });
}

export const forgetTab = () => attempt(() => sessionStorage.removeItem(TAB));
export const loadName = () => attempt(() => localStorage.getItem(NAME)) ?? "";
export const saveName = (name) => attempt(() => localStorage.setItem(NAME, name));
export const loadTheme = () => attempt(() => localStorage.getItem(THEME)) ?? "auto";
export const saveTheme = (theme) => attempt(() => localStorage.setItem(THEME, theme));
