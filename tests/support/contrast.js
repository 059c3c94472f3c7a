// Texts of the page whose contrast to what is behind them is below WCAG's 4.5, as [element, contrast].
const channels = (color) => {
  const found = color.match(/^rgba?\(([^)]+)\)/);
  if (!found) throw new Error(`a colour in another notation: ${color}`);
  const values = found[1].split(/[ ,/]+/).map(Number);
  return values.length > 3 ? values : [...values, 1];
};
const luminance = (color) => {
  const [red, green, blue] = color.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const background = getComputedStyle(at).backgroundColor;
    if (background.startsWith("rgb") && channels(background)[3] === 1) return channels(background);
  }
  return [255, 255, 255, 1];
};
const weak = [];
let seen = 0;
for (const element of document.querySelectorAll("body *")) {
  const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!says || !element.getClientRects().length) continue;
  seen += 1;
  const style = getComputedStyle(element);
  const ink = channels(element instanceof SVGElement ? style.fill : style.color);
  const [one, other] = [luminance(ink), luminance(behind(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < 4.5) weak.push([element.outerHTML.slice(0, 80), contrast]);
}
return [seen, weak];
