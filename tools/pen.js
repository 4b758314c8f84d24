// A pen with what the live figures use of a canvas, that writes SVG.
globalThis.svgPen = (width, height) => {
  const parts = [], n = (x) => String(Math.round(x * 10) / 10);
  const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  let path = "";
  const pen = {
    fillStyle: "", strokeStyle: "", lineWidth: 1, textAlign: "start", globalAlpha: 1, font: "", dash: [],
    beginPath() { path = ""; },
    moveTo(x, y) { path += `M${n(x)} ${n(y)}`; },
    lineTo(x, y) { path += `${path ? "L" : "M"}${n(x)} ${n(y)}`; },
    closePath() { path += "Z"; },
    rect(x, y, w, h) { path += `M${n(x)} ${n(y)}h${n(w)}v${n(h)}h${n(-w)}Z`; },
    arc(x, y, r) { path += `M${n(x - r)} ${n(y)}a${n(r)} ${n(r)} 0 1 0 ${n(2 * r)} 0a${n(r)} ${n(r)} 0 1 0 ${n(-2 * r)} 0`; },
    setLineDash(dash) { pen.dash = dash; },
    stroke() { put(`d="${path}" fill="none" stroke="${pen.strokeStyle}" stroke-width="${n(pen.lineWidth)}"${pen.dash.length ? ` stroke-dasharray="${pen.dash}"` : ""}`); },
    fill() { put(`d="${path}" fill="${pen.fillStyle}"`); },
    fillRect(x, y, w, h) { put(`d="M${n(x)} ${n(y)}h${n(w)}v${n(h)}h${n(-w)}Z" fill="${pen.fillStyle}"`); },
    strokeRect(x, y, w, h) { put(`d="M${n(x)} ${n(y)}h${n(w)}v${n(h)}h${n(-w)}Z" fill="none" stroke="${pen.strokeStyle}" stroke-width="${n(pen.lineWidth)}"`); },
    fillText(text, x, y) {
      const anchor = { center: "middle", right: "end" }[pen.textAlign];
      parts.push(`<text x="${n(x)}" y="${n(y)}" fill="${pen.fillStyle}"${anchor ? ` text-anchor="${anchor}"` : ""}>${escape(text)}</text>`);
    },
    drawImage(picture, x, y, w, h) {
      parts.push(`<image x="${n(x)}" y="${n(y)}" width="${n(w)}" height="${n(h)}" preserveAspectRatio="none" style="image-rendering:pixelated" href="${picture.toDataURL()}"/>`);
    },
    text: () => `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${n(height)}" font-family="system-ui,'DejaVu Sans',sans-serif" font-size="13">\n${parts.join("\n")}\n</svg>\n`,
  };
  function put(what) {
    parts.push(`<path ${what}${pen.globalAlpha < 1 ? ` opacity="${n(pen.globalAlpha)}"` : ""}/>`);
  }
  return pen;
};
