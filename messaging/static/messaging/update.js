// Loads this page again every few seconds, and replaces the sections that may change.
// A section in which somebody works with the keyboard or a form stays as it is.
const PAUSE = 5000;

function isInUse(section) {
  return section.contains(document.activeElement);
}

async function update() {
  if (document.hidden) return;
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (!answer.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const section of document.querySelectorAll("[data-updates]")) {
    const fresh = page.getElementById(section.id);
    const hasChanged = fresh && fresh.innerHTML !== section.innerHTML;
    if (hasChanged && !isInUse(section)) section.replaceWith(fresh);
  }
}

async function updateForEver() {
  // The server may be away for a moment.
  await update().catch(() => {});
  setTimeout(updateForEver, PAUSE);
}

setTimeout(updateForEver, PAUSE);
