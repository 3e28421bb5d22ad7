/**
 * The storage that outlives a reload. The state of the tab (user, rooms, unsent lines) is kept with the
 * tab. Only the name and the theme are kept for the next visit. A token is never kept longer than the
 * tab.
 */

const TAB = "hubbub.tab";
const NAME = "hubbub.name";
const THEME = "hubbub.theme";

// Storage may be forbidden or full; the page works without it.
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

/** Stores a value. Returns false if it could not be stored. */
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
