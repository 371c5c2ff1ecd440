// What is wrong with the page as it stands, as a list of lines; none: nothing was found.
() => {
  const found = [];
  const visible = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: false });
  const name = (e) => `${e.tagName.toLowerCase()}${e.className ? "." + e.className : ""} "${(e.textContent || "").trim().slice(0, 30)}"`;
  const text = (ids) => (ids || "").split(/\s+/).map((id) => document.getElementById(id)?.textContent || "").join("").trim();
  const called = (e) => (e.getAttribute("aria-label") || text(e.getAttribute("aria-labelledby")) || [...(e.labels || [])].map((l) => l.textContent).join("") || "").trim();

  for (const e of document.querySelectorAll("input, select, textarea, progress, [role=group], dialog, nav")) {
    if (!called(e)) found.push(`no label: ${name(e)}`);
  }
  for (const e of document.querySelectorAll("button, a, summary")) {
    const alt = [...e.querySelectorAll("img")].map((i) => i.alt).join("");
    if (!called(e) && !e.textContent.trim() && !alt) found.push(`no name: ${name(e)}`);
  }
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) found.push(`no alt: ${e.src}`);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) found.push(`id twice: ${id}`);
  for (const e of document.querySelectorAll("[aria-describedby], label[for]")) {
    for (const id of (e.getAttribute("aria-describedby") || e.htmlFor).split(/\s+/)) {
      if (!document.getElementById(id)) found.push(`names nothing: ${id} of ${name(e)}`);
    }
  }
  const levels = [...document.querySelectorAll("main h1, main h2, main h3")].filter(visible).map((e) => Number(e.tagName[1]));
  if (levels.filter((level) => level === 1).length > 1) found.push("more than one h1");
  if (!document.documentElement.lang || !document.title) found.push("no language or title");

  // Contrast of text with what lies behind it (WCAG 2: 4.5 to 1).
  const colour = (css) => {
    const [r, g, b, a = 1] = css.match(/[\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const over = (top, below) => ({ rgb: top.rgb.map((c, i) => c * top.a + below.rgb[i] * (1 - top.a)), a: 1 });
  const behind = (e) => {
    const layers = [];
    for (let up = e; up; up = up.parentElement) layers.push(colour(getComputedStyle(up).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), { rgb: [255, 255, 255], a: 1 });
  };
  const light = ({ rgb }) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !visible(e) || e.closest("noscript, .unseen, .frame")) continue;
    const ground = behind(e);
    const ink = over(colour(getComputedStyle(e).color), ground);
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)}: ${name(e)}`);
  }

  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) {
    const wide = [...document.querySelectorAll("body *")].filter((e) => visible(e) && e.getBoundingClientRect().right > innerWidth + 1);
    found.push(`scrolls sideways: ${width} of ${innerWidth}: ${wide.slice(0, 4).map(name).join("; ")}`);
  }
  for (const e of document.querySelectorAll("main button, main .button, nav a, summary")) {
    const box = e.getBoundingClientRect();
    if (visible(e) && box.height && box.height < 24) found.push(`too small to hit: ${name(e)} ${box.height}`);
  }
  return found;
}
