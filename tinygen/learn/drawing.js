(() => {
  const { height, width, colors, levels, per, order, drawn } = data, cell = Math.max(1, Math.floor(288 / Math.max(height, width)));
  const image = byId("image").getContext("2d"), seen = byId("seen").getContext("2d"), bars = byId("bars").getContext("2d");
  for (const { canvas } of [image, seen]) { canvas.width = width * cell; canvas.height = height * cell; }
  const place = k => [Math.floor(order[k] / colors) % width, Math.floor(order[k] / colors / width)];  // column, row

  const pattern = document.createElement("canvas"), pen = pattern.getContext("2d");
  pattern.width = pattern.height = 6;
  pen.strokeStyle = "#8a9099";
  for (const at of [-3, 3, 9]) { pen.moveTo(at, 6); pen.lineTo(at + 6, 0); }
  pen.stroke();

  function background(context) {
    context.clearRect(0, 0, width * cell, height * cell);
    context.fillStyle = context.createPattern(pattern, "repeat");
    context.fillRect(0, 0, width * cell, height * cell);
  }
  function frame(context, k) {
    const [x, y] = place(k);
    context.lineWidth = Math.max(1, cell / 8);
    context.strokeStyle = "#e06c00";
    context.strokeRect(x * cell + .5, y * cell + .5, cell - 1, cell - 1);
  }
  function soFar(n) {
    const values = new Map();
    for (let k = 0; k < n; k++) {
      const pixel = Math.floor(order[k] / colors), found = values.get(pixel) || values.set(pixel, []).get(pixel);
      found[order[k] % colors] = Math.round(drawn[k] / (levels - 1) * 255);
    }
    return values;
  }
  function distribution(m, k) {
    const shares = bytes(m.bars), wide = 288 / shares.length;
    bars.clearRect(0, 0, 288, 288);
    shares.forEach((v, i) => {
      bars.fillStyle = i === Math.floor(drawn[k] / per) ? "#e06c00" : "#5f8fc0";
      bars.fillRect(i * wide + wide * .08, 286 - v / 255 * 280, wide * .84, v / 255 * 280 + 2);
    });
  }
  player(k => {
    const m = data.moments[k], dependent = bytes(m.seen), [x, y] = place(k), before = soFar(k);
    const square = pixel => [pixel % width * cell, Math.floor(pixel / width) * cell, cell, cell];
    background(image);
    background(seen);
    for (const [pixel, v] of soFar(k + 1)) {
      image.fillStyle = `rgb(${colors === 1 ? [v[0], v[0], v[0]] : [v[0] ?? 0, v[1] ?? 0, v[2] ?? 0]})`;
      image.fillRect(...square(pixel));
    }
    for (const pixel of before.keys()) {
      for (const color of ["#fff", `rgba(20,90,160,${dependent[pixel] / 255})`]) {
        seen.fillStyle = color;
        seen.fillRect(...square(pixel));
      }
    }
    frame(image, k);
    frame(seen, k);
    distribution(m, k);
    const color = colors > 1 ? `, ${["red", "green", "blue"][order[k] % colors] ?? order[k] % colors}` : "";
    return `Value ${k + 1} of ${order.length}, row ${y}, column ${x}${color}: level ${drawn[k]} is drawn, whose probability is ${m.p}. ` +
      `It depends on ${m.looked} of ${before.size} pixels. So far -log p is ${m.nats} nats`;
  }, 120);
})();
