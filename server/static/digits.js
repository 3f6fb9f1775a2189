/** From pen strokes to what the digits network was trained on: the 8x8 reduction of UCI's optical digits. */

const SIDE = 32; // the bitmap whose 4x4 blocks are counted
const BLOCK = 4;
const INK = 0.305 * SIDE * SIDE; // the training images, of every digit alike, hold this much ink
const PENS = [3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7]; // widths on that bitmap, thinnest first

/**
 * Strokes, each a list of [x, y] in any unit -> 64 counts of ink, 0..16, row by row; all 0 without a stroke.
 * The strokes are cropped to their bounding box, scaled to fill 32x32 keeping their aspect, centred, binarised
 * (a pixel is ink when its centre lies under the pen), and the ink in each block of 4x4 pixels is counted.
 * The pen is the thinnest that gives the ink of the training images: a small drawing counts as much as a large one.
 */
export function reduce(strokes) {
  const counts = new Array((SIDE / BLOCK) ** 2).fill(0);
  const points = strokes.flat();
  if (!points.length) return counts;
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const box = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  let ink;
  for (const pen of PENS) {
    ink = draw(strokes, box, pen);
    if (ink.reduce((sum, wet) => sum + wet) >= INK) break;
  }
  ink.forEach((wet, i) => {
    const row = Math.floor(i / SIDE / BLOCK);
    const column = Math.floor((i % SIDE) / BLOCK);
    counts[row * (SIDE / BLOCK) + column] += wet;
  });
  return counts;
}

/** The bitmap, row by row, 1 for ink, of strokes whose bounding box fills it when drawn with this pen. */
function draw(strokes, [left, right, top, bottom], pen) {
  const ink = new Uint8Array(SIDE * SIDE);
  const scale = (SIDE - pen) / Math.max(right - left, bottom - top, 1e-9);
  for (const stroke of strokes) {
    const line = stroke.map(([x, y]) => [
      SIDE / 2 + (x - (left + right) / 2) * scale,
      SIDE / 2 + (y - (top + bottom) / 2) * scale,
    ]);
    line.forEach((point, i) => press(ink, line[Math.max(0, i - 1)], point, pen / 2));
  }
  return ink;
}

/** Inks the pixels whose centre is within `reach` of the segment a-b. */
function press(ink, a, b, reach) {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const length2 = dx * dx + dy * dy;
  const clamp = (value) => Math.min(SIDE - 1, Math.max(0, Math.floor(value)));
  for (let y = clamp(Math.min(a[1], b[1]) - reach); y <= clamp(Math.max(a[1], b[1]) + reach); y++) {
    for (let x = clamp(Math.min(a[0], b[0]) - reach); x <= clamp(Math.max(a[0], b[0]) + reach); x++) {
      const [px, py] = [x + 0.5 - a[0], y + 0.5 - a[1]];
      const along = length2 ? Math.min(1, Math.max(0, (px * dx + py * dy) / length2)) : 0;
      if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= reach * reach) ink[y * SIDE + x] = 1;
    }
  }
}

/** A Catmull-Rom curve through the points: sample digits look drawn by hand. */
function curve(points, steps = 10) {
  const at = (i) => points[Math.min(points.length - 1, Math.max(0, i))];
  const line = [];
  for (let i = 0; i + 1 < points.length; i++) {
    const [p, q, r, s] = [at(i - 1), at(i), at(i + 1), at(i + 2)];
    for (let step = 0; step < steps; step++) {
      const t = step / steps;
      line.push([0, 1].map((k) => q[k] + 0.5 * t * (r[k] - p[k] + t * (2 * p[k] - 5 * q[k] + 4 * r[k] - s[k] + t * (3 * (q[k] - r[k]) + s[k] - p[k])))));
    }
  }
  return [...line, at(points.length - 1)];
}

/** Ten sample digits as strokes on a unit square. */
export const samples = [
  [[[0.52, 0.14], [0.36, 0.2], [0.28, 0.42], [0.3, 0.68], [0.44, 0.86], [0.6, 0.82], [0.7, 0.62], [0.7, 0.36], [0.62, 0.18], [0.5, 0.14]]],
  [[[0.38, 0.3], [0.46, 0.23], [0.54, 0.12], [0.53, 0.4], [0.52, 0.64], [0.52, 0.88]]],
  [[[0.3, 0.3], [0.36, 0.18], [0.5, 0.13], [0.64, 0.2], [0.66, 0.36], [0.54, 0.56], [0.4, 0.72], [0.28, 0.85], [0.32, 0.86], [0.5, 0.84], [0.74, 0.85]]],
  [[[0.3, 0.2], [0.44, 0.12], [0.6, 0.15], [0.66, 0.28], [0.58, 0.41], [0.44, 0.47], [0.6, 0.5], [0.7, 0.64], [0.62, 0.81], [0.46, 0.88], [0.28, 0.8]]],
  [[[0.46, 0.12], [0.38, 0.34], [0.27, 0.58], [0.28, 0.61], [0.5, 0.6], [0.76, 0.58]], [[0.62, 0.38], [0.6, 0.62], [0.57, 0.9]]],
  [[[0.4, 0.14], [0.37, 0.3], [0.34, 0.46], [0.36, 0.46], [0.5, 0.42], [0.64, 0.5], [0.68, 0.66], [0.6, 0.82], [0.44, 0.88], [0.29, 0.8]], [[0.4, 0.14], [0.55, 0.13], [0.7, 0.12]]],
  [[[0.56, 0.12], [0.42, 0.26], [0.33, 0.46], [0.31, 0.68], [0.4, 0.85], [0.56, 0.86], [0.67, 0.72], [0.62, 0.56], [0.48, 0.52], [0.34, 0.64]]],
  [[[0.27, 0.16], [0.46, 0.15], [0.7, 0.14], [0.72, 0.16], [0.6, 0.38], [0.5, 0.6], [0.43, 0.88]], [[0.38, 0.52], [0.52, 0.5], [0.66, 0.49]]],
  [[[0.66, 0.22], [0.52, 0.12], [0.37, 0.18], [0.35, 0.32], [0.48, 0.46], [0.63, 0.6], [0.66, 0.76], [0.52, 0.88], [0.37, 0.8], [0.37, 0.62], [0.5, 0.46], [0.64, 0.34], [0.66, 0.22]]],
  [[[0.66, 0.24], [0.54, 0.13], [0.38, 0.19], [0.33, 0.34], [0.42, 0.47], [0.56, 0.45], [0.66, 0.3], [0.67, 0.24], [0.66, 0.5], [0.6, 0.72], [0.5, 0.88]]],
].map((strokes) => strokes.map((points) => curve(points)));
