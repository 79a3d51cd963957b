// Zoom by wheel and by two fingers, and moving by a pointer, over something that is looked at.

// `zoom` is given a factor and a place of the element that stays where it is, `move` what the
// pointer went right and down; returns what tells how far it went since it was put down.
export const gestures = (canvas, { zoom, move }) => {
  const place = (event) => {
    const { left, top } = canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !canvas.contains(document.activeElement)) return; // the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), place(event));
    },
    { passive: false },
  );
  const pointers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    if (pointers.size === 0) moved = 0;
    pointers.set(event.pointerId, place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = place(event);
    const [right, down] = [now[0] - before[0], now[1] - before[1]];
    moved += Math.abs(right) + Math.abs(down);
    if (moved < 4) return;
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (!canvas.hasPointerCapture(event.pointerId)) canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, now);
    if (!other) {
      move(right, down);
      return;
    }
    const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
    zoom(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
  });
  for (const kind of ["pointerup", "pointercancel", "pointerleave"])
    canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
  return () => moved;
};
