// Figures of a self-assessment scale, after Bradley & Lang 1994 (doi:10.1016/0005-7916(94)90063-9), drawn anew:
// valence in the mouth, arousal in what bursts in the chest, dominance in how much room the figure takes.
const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const line = { fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linecap": "round" };

function valence(share) {
  const bend = 33 + 18 * (share - 0.5);
  return [
    shape("circle", { ...line, cx: 24, cy: 24, r: 18 }),
    shape("circle", { cx: 18, cy: 20, r: 2, fill: "currentColor" }),
    shape("circle", { cx: 30, cy: 20, r: 2, fill: "currentColor" }),
    shape("path", { ...line, d: `M15 ${33 - 6 * (share - 0.5)} Q24 ${bend + 4 * (share - 0.5)} 33 ${33 - 6 * (share - 0.5)}` }),
  ];
}

function arousal(share) {
  const rays = Array.from({ length: 8 }, (_, index) => {
    const angle = (index * Math.PI) / 4;
    const [from, to] = [4 + 5 * share, 5 + 13 * share];
    const at = (radius) => `${24 + radius * Math.cos(angle)} ${24 + radius * Math.sin(angle)}`;
    return shape("path", { ...line, d: `M${at(from)} L${at(to)}` });
  });
  const body = shape("circle", { ...line, cx: 24, cy: 24, r: 20 });
  const core = shape("circle", { cx: 24, cy: 24, r: 1.5 + 3 * share, fill: "currentColor" });
  return share ? [body, core, ...rays] : [body, core];
}

function dominance(share) {
  const size = 0.35 + 0.65 * share;
  const figure = shape("g", { transform: `translate(24 44) scale(${size})` });
  figure.append(
    shape("circle", { ...line, cx: 0, cy: -33, r: 7 }),
    shape("path", { ...line, d: "M-14 -2 V-12 Q-14 -22 0 -22 Q14 -22 14 -12 V-2 Z" }),
  );
  return [shape("rect", { ...line, x: 3, y: 2, width: 42, height: 44, rx: 4, "stroke-width": 1 }), figure];
}

const FIGURES = { valence, arousal, dominance };
export const ENDS = {
  valence: ["negative", "positive"],
  arousal: ["calm", "excited"],
  dominance: ["weak", "in control"],
};

/** The figure of one step, `share` 0 to 1. */
export function manikin(dimension, share) {
  const figure = shape("svg", { viewBox: "0 0 48 48", "aria-hidden": "true" });
  figure.append(...FIGURES[dimension](share));
  return figure;
}
