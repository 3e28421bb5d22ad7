/**
 * Making and keeping elements. Text goes in as text nodes only: there is no way here to make
 * markup of it.
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

/** The element of the document with this id. */
export const byId = (id) => document.getElementById(id);

/** Sets a text only where it changed, so that nothing is announced twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The nodes of a text in which names stand between U+2068 and U+2069: each keeps its direction. */
export function isolated(text) {
  const parts = text.split(/\u2068(.*?)\u2069/u);
  return parts.map((part, index) => (index % 2 === 1 ? h("bdi", {}, part) : part));
}

/**
 * Makes the children of `parent` those of `items`, in order. An item is `{key, ...}`; a child whose
 * key and looks are unchanged stays the element it was, with its focus and its place.
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

/** `action`, soon and once, however often it is asked for meanwhile. */
export function soon(action) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    setTimeout(() => {
      asked = false;
      action();
    });
  };
}
