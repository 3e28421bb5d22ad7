//! The chart: what a delivery costs and how long it takes by rate, and what it costs by members.
//! Plain SVG, on logarithmic scales, readable on light and dark pages.

use std::fmt::Write;

use crate::results::{
    Case, Figure, Kind, Rate, Results, Shape, System, Threads, cpu, grouped, p99,
};

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 44.0;
const STEP: f64 = WIDTH + LEFT + 16.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#57606a}\
    .t{font-weight:600;fill:#24292f}.g{stroke:#8c959f;stroke-opacity:.35}\
    .l{fill:none;stroke-width:2.5;stroke-linejoin:round}\
    @media(prefers-color-scheme:dark){text{fill:#9198a1}.t{fill:#e6edf3}}";

fn color(system: System) -> &'static str {
    match system {
        System(Kind::Floor, Threads::All) => "#57606a",
        System(Kind::Floor, _) => "#b1bac4",
        System(Kind::Embedded, _) => "#2da44e",
        System(Kind::Redis, _) => "#0969da",
    }
}

/// One panel: what stands below, and a line of values for each system.
struct Panel {
    title: &'static str,
    ticks: Vec<String>,
    lines: Vec<(System, Vec<Option<f64>>)>,
}

pub(crate) fn of(results: &Results) -> String {
    let panel = |title, is_shown: fn(Shape, Rate) -> bool, tick: fn(Shape, Rate) -> String, of| {
        let mut loads = results.loads();
        loads.retain(|&(shape, rate)| is_shown(shape, rate));
        let line = |system| {
            let value = |&(shape, rate)| results.median(system, Case::Load(shape, rate), of);
            (system, loads.iter().map(value).collect())
        };
        Panel {
            title,
            lines: System::COMPARED.map(line).into(),
            ticks: loads
                .iter()
                .map(|&(shape, rate)| tick(shape, rate))
                .collect(),
        }
    };
    let by_rate = |title, of: Figure| {
        let is_shown = |shape, _| shape == Shape::HALL;
        panel(title, is_shown, |_, rate| rate.to_string(), of)
    };
    let panels = [
        by_rate("CPU µs a delivery, by messages/s", cpu),
        by_rate("p99 ms, by messages/s", p99),
        panel(
            "CPU µs a delivery, by members (100/s)",
            |shape, rate| shape.rooms == 1 && rate == Rate::Of(100),
            |shape, _| grouped(shape.members as f64),
            cpu,
        ),
    ];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" \
         aria-label=\"CPU and latency of a delivery\">\n<style>{STYLE}</style>\n",
        STEP * panels.len() as f64,
        TOP + HEIGHT + 56.0
    );
    for (index, panel) in panels.iter().enumerate() {
        draw(panel, index as f64 * STEP, &mut svg);
    }
    legend(&mut svg);
    svg.push_str("</svg>\n");
    svg
}

fn draw(panel: &Panel, x: f64, svg: &mut String) {
    let values = panel.lines.iter().flat_map(|(_, values)| values.iter());
    let values: Vec<_> = values.flatten().map(|value| value.log10()).collect();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let high = values
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max)
        .ceil()
        .max(low + 1.0);
    let _ = writeln!(
        svg,
        "<g transform=\"translate({:.0} {TOP:.0})\">\n\
         <text class=\"t\" y=\"-16\" x=\"-34\">{}</text>",
        x + LEFT,
        panel.title
    );
    if panel.ticks.is_empty() || !low.is_finite() {
        svg.push_str("</g>\n");
        return;
    }
    let across = |index: usize| (index as f64 + 0.5) * WIDTH / panel.ticks.len() as f64;
    let down = |log: f64| HEIGHT * (high - log) / (high - low);
    for power in low as i32..=high as i32 {
        let y = down(f64::from(power));
        let digits = usize::try_from(-power).unwrap_or(0);
        let _ = writeln!(
            svg,
            "<path class=\"g\" d=\"M0 {y:.1}H{WIDTH:.0}\"/>\
             <text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{:.digits$}</text>",
            y + 4.0,
            10f64.powi(power)
        );
    }
    for (index, tick) in panel.ticks.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{tick}</text>",
            across(index),
            HEIGHT + 18.0
        );
    }
    for (system, values) in &panel.lines {
        let points = values
            .iter()
            .enumerate()
            .filter_map(|(index, value)| Some((across(index), down(value.as_ref()?.log10()))));
        let points: Vec<_> = points.collect();
        let color = color(*system);
        let path: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1} {y:.1}"))
            .collect();
        if !path.is_empty() {
            let path = path.join("L");
            let _ = writeln!(svg, "<path class=\"l\" stroke=\"{color}\" d=\"M{path}\"/>");
        }
        for (x, y) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>"
            );
        }
    }
    svg.push_str("</g>\n");
}

fn legend(svg: &mut String) {
    let y = TOP + HEIGHT + 42.0;
    for (index, system) in System::COMPARED.into_iter().enumerate() {
        let x = LEFT + 190.0 * index as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.0} {:.0}h22\" stroke=\"{}\" stroke-width=\"2.5\"/>\
             <text x=\"{:.0}\" y=\"{y:.0}\">{system}</text>",
            y - 4.0,
            color(system),
            x + 28.0
        );
    }
}
