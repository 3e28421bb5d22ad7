/**
 * Helpers that make and keep elements. Text becomes text nodes only, never markup.
 */

/** An element with properties (`class`, `dataset`, `on…`, attributes) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * The element of the document with this id, of whichever kind it is there.
 * @type {(id: string) => any}
 */
export const byId = (id) => document.getElementById(id);

/** Sets a text only if it changed, so that a screen reader does not announce it twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The nodes of a text. Each name between U+2068 and U+2069 keeps its own direction of writing. */
export function isolated(text) {
  const parts = text.split(/\u2068(.*?)\u2069/u);
  return parts.map((part, index) => (index % 2 === 1 ? h("bdi", {}, part) : part));
}

/** The sign beside a name that looks like the name of another; nothing without another. */
export function unlike(other) {
  return other ? h("span", { class: "unlike" }, "not ", h("bdi", {}, other)) : null;
}

/**
 * Makes the children of `parent` show `items`, in order. An item is `{key, ...}`. If the key and the
 * content of a child are unchanged, its element stays, and keeps its focus and its place.
 */
export function reconcile(parent, items, looks, make) {
  const before = new Map();
  for (const child of parent.children) before.set(child.reconcileKey, child);
  let place = parent.firstElementChild;
  for (const item of items) {
    const look = looks(item);
    let child = before.get(item.key);
    before.delete(item.key);
    if (!child || child.reconcileLook !== look) {
      const made = make(item);
      made.reconcileKey = item.key;
      made.reconcileLook = look;
      if (child) {
        if (child === place) place = made;
        child.replaceWith(made);
      }
      child = made;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of before.values()) child.remove();
}

/** A function that runs `action` soon, or after some milliseconds, and once for all calls in between. */
export function soon(action, after = 0) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    setTimeout(() => {
      asked = false;
      action();
    }, after);
  };
}
