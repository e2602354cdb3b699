(() => {
  const plane = byId("plane"), size = plane.width, context = plane.getContext("2d"), real = bytes(data.real);
  const small = document.createElement("canvas");
  small.width = small.height = data.side;

  function field(values) {
    const image = new ImageData(data.side, data.side);
    values.forEach((v, i) => {
      const t = v / 127.5 - 1, fade = 255 * (1 - Math.abs(t) * .75);  // blue, white, orange
      image.data.set(t < 0 ? [fade, fade * .8 + 51, 255, 255] : [255, fade * .6 + 102, fade, 255], 4 * i);
    });
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, size, size);
  }
  const x = v => v / 255 * size, y = v => size - v / 255 * size;
  function dots(values, color, radius) {
    context.fillStyle = color;
    for (let i = 0; i < values.length; i += 2) {
      context.beginPath();
      context.arc(x(values[i]), y(values[i + 1]), radius, 0, 7);
      context.fill();
    }
  }
  player(i => {
    const m = data.moments[i], points = bytes(m.points), pushes = bytes(m.pushes);
    field(bytes(m.field));
    dots(real, "#50555c", 1.6);
    context.strokeStyle = "#3a2a00";
    context.lineWidth = 1;
    context.beginPath();
    for (let k = 0; k < pushes.length; k += 2) {
      const dx = (pushes[k] << 24 >> 24) / 127 * 16, dy = (pushes[k + 1] << 24 >> 24) / 127 * 16;
      context.moveTo(x(points[k]), y(points[k + 1]));
      context.lineTo(x(points[k]) + dx, y(points[k + 1]) - dy);
    }
    context.stroke();
    dots(points, "#d6a400", 2.4);
    const numbers = data.names.map((name, k) => `${name} ${m.parts[k]}`).join(", ");
    return `Step ${m.step}: ${numbers}; mean push ${m.push}`;
  }, 80);
})();
