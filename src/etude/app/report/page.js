"use strict";
(() => {
  // Okabe and Ito (2008): colours that everybody tells apart; the pale ones are darkened for white paper.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a7a7a", "#a0522d"];
  const DASHES = ["solid", "dashed", "dotted", "dotdash"];
  const POLL = 3000;
  const byId = (id) => document.getElementById(id);
  let data = JSON.parse(byId("data").textContent);
  const shown = { axis: "step", smooth: 0, log: false };
  const built = new Map();

  const make = (name, told = "", attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = told;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => (value === null || value === undefined ? "" : String(Number(value.toPrecision(5))));

  // An exponential mean without its bias towards 0, as of the first Adam moment (Kingma and Ba 2015).
  const smoothed = (values, share) => {
    let sum = 0;
    let weight = 0;
    return values.map((value) => {
      sum = share * sum + (1 - share) * value;
      weight = share * weight + 1 - share;
      return sum / weight;
    });
  };

  const linesOf = (chart) => {
    const lines = [];
    data.runs.forEach((run, number) => {
      chart.keys.forEach((key, which) => {
        const series = run.series[key];
        if (!series) return;
        const alone = data.runs.length === 1;
        lines.push({
          name: alone ? key : chart.keys.length === 1 ? run.name : `${run.name}: ${key}`,
          colour: COLOURS[(alone ? which : number) % COLOURS.length],
          dash: alone ? "solid" : DASHES[(which + Math.floor(number / COLOURS.length)) % DASHES.length],
          x: series.at.map((place) => run.axes[shown.axis][place]),
          y: series.y,
        });
      });
    });
    return lines;
  };

  const spread = (values, log) => {
    const kept = values.filter((value) => Number.isFinite(value) && (!log || value > 0));
    if (!kept.length) return log ? [0.1, 1] : [0, 1];
    let low = kept.reduce((a, b) => Math.min(a, b));
    let high = kept.reduce((a, b) => Math.max(a, b));
    if (log) return low < high ? [low / 1.1, high * 1.1] : [low / 2, high * 2];
    const rim = low < high ? (high - low) * 0.05 : Math.abs(low) * 0.1 || 1;
    return [low - rim, high + rim];
  };

  const styled = (plot) => {
    const ink = colour("--ink");
    const rule = colour("--rule");
    plot.background_fill_color = colour("--paper");
    plot.border_fill_color = colour("--panel");
    plot.outline_line_color = rule;
    for (const axis of [...plot.below, ...plot.left]) {
      axis.axis_label_text_color = ink;
      axis.major_label_text_color = ink;
      axis.axis_line_color = rule;
      axis.major_tick_line_color = rule;
      axis.minor_tick_line_color = null;
    }
    for (const grid of plot.center) if ("grid_line_color" in grid) grid.grid_line_color = rule;
  };

  const frame = (options) =>
    new Bokeh.Plotting.figure({
      height: 280, sizing_mode: "stretch_width", toolbar_location: "above", output_backend: "canvas", ...options,
    });

  const views = new WeakMap();

  // What was drawn into a place before is let go, or each change of a page that follows a run would cost memory.
  const forget = async (place) => {
    const before = views.get(place);
    views.delete(place);
    if (!before) return;
    const view = await before.view;
    view.remove();
    const number = Bokeh.documents.indexOf(before.plot.document);
    if (number >= 0) Bokeh.documents.splice(number, 1);
  };

  const show = (plot, place) => {
    forget(place);
    place.replaceChildren();
    styled(plot);
    plot.toolbar.logo = null;
    views.set(place, { plot, view: Bokeh.Plotting.show(plot, place) });
  };

  const hidden = new Set();

  // Which curve is which, and whether it is seen: boxes to tick, which a keyboard reaches as well.
  const legend = (chart, place, lines, drawn) => {
    const figure = place.closest("figure");
    figure.querySelector(".legend")?.remove();
    if (lines.length < 2) return;
    const list = make("div", "", { class: "legend", role: "group", "aria-label": `Curves of ${chart.title}` });
    for (const line of lines) {
      const key = `${chart.title}\n${line.name}`;
      const box = make("input", "", { type: "checkbox" });
      box.checked = !hidden.has(key);
      const apply = () => drawn.get(line.name).forEach((one) => { one.visible = box.checked; });
      box.addEventListener("change", () => { box.checked ? hidden.delete(key) : hidden.add(key); apply(); });
      if (!box.checked) apply();
      const label = make("label");
      const swatch = make("span", "", { class: `swatch ${line.dash}` });
      swatch.style.borderTopColor = line.colour;
      label.append(box, swatch, document.createTextNode(line.name));
      list.append(label);
    }
    place.after(list);
  };

  const drawCurves = (chart, place) => {
    const lines = linesOf(chart);
    const x = spread(lines.flatMap((line) => line.x), false);
    const y = spread(lines.flatMap((line) => line.y), shown.log);
    const plot = frame({
      x_range: new Bokeh.Range1d({ start: x[0], end: x[1] }), y_range: new Bokeh.Range1d({ start: y[0], end: y[1] }),
      x_axis_label: shown.axis, y_axis_type: shown.log ? "log" : "linear",
      tools: "pan,box_zoom,wheel_zoom,reset,save",
    });
    plot.toolbar.active_scroll = null;
    const drawn = new Map();
    for (const line of lines) {
      const own = [];
      drawn.set(line.name, own);
      const kept = line.y.map((value) => (shown.log && value <= 0 ? NaN : value));
      if (shown.smooth) own.push(plot.line(line.x, kept, { line_color: line.colour, line_alpha: 0.25, line_width: 1 }));
      const source = new Bokeh.ColumnDataSource({
        data: { x: line.x, y: shown.smooth ? smoothed(kept, shown.smooth) : kept, name: line.x.map(() => line.name) },
      });
      const style = { source, line_color: line.colour, line_width: 1.8, line_dash: line.dash };
      const curve = plot.line({ field: "x" }, { field: "y" }, style);
      own.push(curve);
      if (line.x.length < 60) {
        own.push(plot.scatter({ field: "x" }, { field: "y" }, {
          source, size: 4, fill_color: line.colour, line_color: line.colour,
        }));
      }
      plot.add_tools(new Bokeh.HoverTool({
        renderers: [curve], mode: "mouse", point_policy: "snap_to_data",
        tooltips: [["", "@name"], [shown.axis, "@x"], ["value", "@y"]], visible: false,
      }));
    }
    show(plot, place);
    legend(chart, place, lines, drawn);
    return { plot, home: { x, y } };
  };

  const told = (chart) =>
    linesOf(chart).map((line) => {
      const last = line.y[line.y.length - 1];
      const low = line.y.reduce((a, b) => Math.min(a, b), Infinity);
      const high = line.y.reduce((a, b) => Math.max(a, b), -Infinity);
      return `${line.name}: ${line.y.length} points from ${short(line.y[0])} to ${short(last)}, ` +
        `lowest ${short(low)}, highest ${short(high)}`;
    }).join("; ");

  const zoom = (kept, factor, along = 0) => {
    if (!kept || !kept.plot) return;
    for (const [name, range] of [["x", kept.plot.x_range], ["y", kept.plot.y_range]]) {
      if (factor === 0) {
        [range.start, range.end] = kept.home[name];
      } else if (name === "x") {
        const middle = (range.start + range.end) / 2 + along * (range.end - range.start);
        const half = ((range.end - range.start) / 2) * factor;
        range.setv({ start: middle - half, end: middle + half });
      }
    }
  };
  const MOVES = {
    "+": ["Zoom in", 0.6, 0], "-": ["Zoom out", 1 / 0.6, 0], "0": ["Whole curve", 0, 0],
    ArrowLeft: ["Move left", 1, -0.25], ArrowRight: ["Move right", 1, 0.25],
  };
  const SIGNS = { ArrowLeft: "\u2190", ArrowRight: "\u2192" };

  const asTable = (chart) => {
    const details = make("details");
    details.append(make("summary", "As a table"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.querySelector("table")) return;
      const table = make("table");
      table.append(make("caption", `${chart.title}, at most 200 points a curve`));
      const head = table.createTHead().insertRow();
      for (const name of ["curve", shown.axis, "value"]) head.append(make("th", name, { scope: "col" }));
      const body = table.createTBody();
      for (const line of linesOf(chart)) {
        const stride = Math.ceil(line.x.length / 200);
        for (let place = 0; place < line.x.length; place += stride) {
          const row = body.insertRow();
          row.append(make("th", line.name, { scope: "row" }));
          row.append(make("td", short(line.x[place])), make("td", short(line.y[place])));
        }
      }
      const box = make("div", "", { class: "scrolls", tabindex: "0" });
      box.append(table);
      details.append(box);
    });
    return details;
  };

  const figureOf = (chart, draw, summary, { moves = true, wide = false, extra = [] } = {}) => {
    const figure = make("figure", "", { role: "group", "aria-label": chart.title, class: wide ? "wide" : "" });
    const place = make("div", "", {
      class: "plot", role: "img", tabindex: "0", "aria-label": `${chart.title}. ${summary()}`,
    });
    const bar = make("div", "", { class: "bar" });
    const state = {
      place,
      draw: () => {
        try {
          state.kept = draw(place);
        } catch (error) {
          state.kept = { plot: null };
          place.textContent = `This chart cannot be drawn: ${error.message}`;
        }
        place.setAttribute("aria-label", `${chart.title}. ${summary()}`);
      },
    };
    if (moves) {
      for (const [key, [name, factor, along]] of Object.entries(MOVES)) {
        const button = make("button", SIGNS[key] || key, { type: "button", title: `${name} (${key})`, "aria-label": name });
        button.addEventListener("click", () => zoom(state.kept, factor, along));
        bar.append(button);
      }
      place.addEventListener("keydown", (event) => {
        const move = MOVES[event.key === "=" ? "+" : event.key];
        if (!move || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        zoom(state.kept, move[1], move[2]);
      });
    }
    figure.append(make("h3", chart.title), bar, ...extra, place);
    if (moves) figure.append(asTable(chart));
    built.set(place, state);
    seen.observe(place);
    return figure;
  };

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const state = built.get(entry.target);
      if (entry.isIntersecting && state && !state.kept) state.draw();
    }
  }, { rootMargin: "400px" });
  const redraw = () => built.forEach((state) => state.kept && state.draw());

  // -- sweeps: trials as lines over the keys, what each key explains, two keys against each other ----------------

  // From 0, the worst, to 1, the best of the values; nothing for none.
  const goodness = (values, lower) => {
    const known = values.filter((value) => value !== null);
    const low = Math.min(...known);
    const high = Math.max(...known);
    return values.map((value) => {
      if (value === null) return null;
      const share = high > low ? (value - low) / (high - low) : 0.5;
      return lower ? 1 - share : share;
    });
  };
  const shades = (values, lower) => goodness(values, lower).map((good) =>
    good === null ? colour("--rule") : `hsl(${Math.round(280 - 220 * good)}, 70%, ${Math.round(28 + 32 * good)}%)`);
  const inks = (values, lower) => goodness(values, lower).map((good) => (good > 0.55 ? "#000000" : "#ffffff"));

  const drawParallel = (sweep, place) => {
    const known = sweep.results.map((value) => value ?? NaN);
    const [low, high] = [Math.min(...known.filter(Number.isFinite)), Math.max(...known.filter(Number.isFinite))];
    const ends = known.map((value) => (high > low ? (value - low) / (high - low) : 0.5));
    const names = [...sweep.axes.map((axis) => axis.key), sweep.metric];
    const xs = sweep.names.map(() => names.map((_, number) => number));
    const ys = sweep.names.map((_, run) => [...sweep.axes.map((axis) => axis.at[run]), ends[run]]);
    const source = new Bokeh.ColumnDataSource({
      data: { xs, ys, name: sweep.names, colour: shades(sweep.results, sweep.lower), result: known },
    });
    const plot = frame({
      height: 340, tools: "tap,reset,save",
      x_range: new Bokeh.Range1d({ start: -0.3, end: names.length - 0.7 }),
      y_range: new Bokeh.Range1d({ start: -0.06, end: 1.06 }),
    });
    const lines = plot.multi_line({ field: "xs" }, { field: "ys" }, {
      source, line_color: { field: "colour" }, line_width: 1.8, line_alpha: 0.75,
    });
    plot.add_tools(new Bokeh.HoverTool({
      renderers: [lines], tooltips: [["run", "@name"], [sweep.metric, "@result"]], visible: false,
    }));
    plot.xaxis.ticker = new Bokeh.FixedTicker({ ticks: names.map((_, number) => number) });
    plot.xaxis.major_label_overrides = new Map(names.map((name, number) => [number, name]));
    plot.yaxis.visible = false;
    const marks = { x: [], y: [], told: [] };
    sweep.axes.forEach((axis, number) => {
      new Map(axis.told.map((value, run) => [value, axis.at[run]])).forEach((at, value) => {
        marks.x.push(number);
        marks.y.push(at);
        marks.told.push(value.length > 18 ? `${value.slice(0, 16)}...` : value);
      });
    });
    for (const [at, value] of [[0, low], [1, high]]) {
      marks.x.push(names.length - 1);
      marks.y.push(at);
      marks.told.push(short(value));
    }
    plot.text({ field: "x" }, { field: "y" }, { field: "told" }, {
      source: new Bokeh.ColumnDataSource({ data: marks }),
      text_color: colour("--ink"), text_font_size: "11px", x_offset: 5, text_baseline: "middle",
    });
    show(plot, place);
    return { plot };
  };

  const drawImportance = (sweep, place) => {
    const names = Object.keys(sweep.importance).reverse();
    const plot = frame({
      height: 90 + 24 * names.length, tools: "save", y_range: new Bokeh.FactorRange({ factors: names }),
      x_range: new Bokeh.Range1d({ start: 0, end: 1 }), x_axis_label: "share of the variance of ranks",
    });
    plot.hbar({ field: "name" }, 0.7, { field: "share" }, 0, {
      source: new Bokeh.ColumnDataSource({ data: { name: names, share: names.map((name) => sweep.importance[name]) } }),
      fill_color: COLOURS[0], line_color: null,
    });
    show(plot, place);
    return { plot };
  };

  const drawHeat = (sweep, across, up) => (place) => {
    const [x, y] = [sweep.axes[across.value], sweep.axes[up.value]];
    const cells = new Map();
    sweep.results.forEach((result, run) => {
      if (result === null) return;
      const key = JSON.stringify([x.told[run], y.told[run]]);
      cells.set(key, [...(cells.get(key) || []), result]);
    });
    const places = [...cells.keys()].map((key) => JSON.parse(key));
    const means = [...cells.values()].map((values) => values.reduce((a, b) => a + b) / values.length);
    const sorted = (axis) => [...new Map(axis.told.map((value, run) => [value, axis.at[run]]))]
      .sort((a, b) => a[1] - b[1]).map(([value]) => value);
    const plot = frame({
      tools: "save", x_range: new Bokeh.FactorRange({ factors: sorted(x) }), y_range: new Bokeh.FactorRange({ factors: sorted(y) }),
      x_axis_label: x.key, y_axis_label: y.key,
    });
    const source = new Bokeh.ColumnDataSource({
      data: {
        x: places.map((pair) => pair[0]), y: places.map((pair) => pair[1]), colour: shades(means, sweep.lower),
        mean: means, told: means.map(short), ink: inks(means, sweep.lower), runs: [...cells.values()].map((values) => values.length),
      },
    });
    plot.rect({ field: "x" }, { field: "y" }, 0.98, 0.98, { source, fill_color: { field: "colour" }, line_color: null });
    plot.text({ field: "x" }, { field: "y" }, { field: "told" }, {
      source, text_align: "center", text_baseline: "middle", text_font_size: "11px", text_color: { field: "ink" },
    });
    show(plot, place);
    return { plot };
  };

  const chooser = (sweep, name, chosen, change) => {
    const select = make("select", "", { "aria-label": name });
    sweep.axes.forEach((axis, number) => select.append(make("option", axis.key, { value: String(number) })));
    select.value = String(chosen);
    select.addEventListener("change", change);
    return select;
  };

  const sweepCharts = (sweep) => {
    const best = sweep.results.map((value, run) => [value, sweep.names[run]]).filter(([value]) => value !== null)
      .sort((a, b) => (sweep.lower ? a[0] - b[0] : b[0] - a[0]))[0];
    const about = () => `${sweep.names.length} runs over ${sweep.axes.map((axis) => axis.key).join(", ")}` +
      (best ? `; the best is ${best[1]} with ${sweep.metric} ${short(best[0])}` : "");
    const figures = [
      figureOf({ title: "Runs over the keys" }, (place) => drawParallel(sweep, place), about, { moves: false, wide: true }),
    ];
    if (Object.keys(sweep.importance).length) {
      figures.push(figureOf(
        { title: `What each key alone explains of ${sweep.metric}` }, (place) => drawImportance(sweep, place),
        () => Object.entries(sweep.importance).map(([key, share]) => `${key} ${Math.round(share * 100)} %`).join(", "),
        { moves: false },
      ));
    }
    if (sweep.axes.length > 1) {
      let figure = null;
      const change = () => { const state = built.get(figure.querySelector(".plot")); if (state) state.draw(); };
      const across = chooser(sweep, "Key across", 0, change);
      const up = chooser(sweep, "Key upwards", 1, change);
      figure = figureOf(
        { title: `The mean of ${sweep.metric} over two keys` }, drawHeat(sweep, across, up),
        () => `${sweep.axes[across.value].key} against ${sweep.axes[up.value].key}`, { moves: false, extra: [across, up] },
      );
      figures.push(figure);
    }
    return figures;
  };

  // -- the page ---------------------------------------------------------------------------------------------------

  const fill = () => {
    built.forEach((_, place) => { seen.unobserve(place); forget(place); });
    built.clear();
    for (const name of ["curves", "schedules", "pace"]) {
      const place = byId(name);
      if (!place) continue;
      const found = data.charts.filter((chart) => chart.section === name);
      place.replaceChildren(...found.map((chart) => figureOf(chart, (at) => drawCurves(chart, at), () => told(chart))));
      const part = byId(`of-${name}`);
      if (part) part.hidden = !found.length;
    }
    byId("of-sweep").hidden = !data.sweep;
    if (data.sweep) byId("sweep").replaceChildren(...sweepCharts(data.sweep));
  };

  const labelled = (name, control) => {
    const label = make("label", `${name} `);
    label.append(control);
    return label;
  };

  const controls = () => {
    const axis = make("select");
    for (const [value, name] of [["step", "steps"], ["epoch", "epochs"], ["tokens", "tokens"], ["seconds", "time"]]) {
      axis.append(make("option", name, { value }));
    }
    axis.addEventListener("change", () => { shown.axis = axis.value; redraw(); });
    const smooth = make("input", "", { type: "range", min: "0", max: "0.99", step: "0.01", value: "0" });
    smooth.addEventListener("change", () => { shown.smooth = Number(smooth.value); redraw(); });
    const log = make("input", "", { type: "checkbox" });
    log.addEventListener("change", () => { shown.log = log.checked; redraw(); });
    const theme = make("button", "Light or dark", { type: "button" });
    theme.addEventListener("click", () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      redraw();
    });
    byId("controls").append(labelled("Over", axis), labelled("Smoothing", smooth), labelled("Logarithmic", log), theme);
  };

  const follow = async () => {
    try {
      const answer = await fetch("/data.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(await answer.text());
      const newer = await answer.json();
      const { content, running, ...rest } = newer;
      const next = JSON.stringify(rest);
      if (next !== follow.last) {
        const top = window.scrollY;
        data = rest;
        // The server escapes every text in it, and the policy of the page lets no script in it run.
        byId("content").innerHTML = content;
        fill();
        window.scrollTo(0, top);
        follow.last = next;
      }
      byId("status").textContent = running ? "Running; the page follows." : "No run of this page is running.";
    } catch (error) {
      byId("status").textContent = `No newer data: ${error.message}`;
    }
    setTimeout(follow, POLL);
  };

  controls();
  fill();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => built.forEach((state) => state.kept || state.draw()));
  if (location.protocol === "http:") {
    follow.last = JSON.stringify(data);
    setTimeout(follow, POLL);
  }
  document.documentElement.dataset.ready = "yes";
})();
