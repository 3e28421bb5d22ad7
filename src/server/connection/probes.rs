//! The responses to the requests that need no user: for the page, for the probes, and for the metrics.

use super::connections::Connections;
use crate::backplane::ShardState;
use crate::metrics;
use crate::server::http::{Request, Response, Route};
use crate::server::poster;

/// The response for the page, for probes, and for metrics.
pub(super) fn respond(connections: &Connections, route: &Route, request: &Request) -> Response {
    match route {
        Route::Page(asset) => Response::of_asset(asset, request.header("if-none-match")),
        Route::Live => Response::new(200, concat!("alive ", env!("CARGO_PKG_VERSION"))),
        Route::Ready => match connections.ready(&connections.state.backplane.shards()) {
            Ok(state) => Response::new(200, state),
            Err(why) => Response::new(503, format!("not ready: {why}")).with("Retry-After", "1"),
        },
        Route::Metrics => {
            metrics::CONNECTIONS.set(connections.count());
            metrics::ROOMS.set(connections.state.hub.count());
            metrics::IN_FLIGHT.set(connections.state.backplane.in_flight());
            let shards = connections.state.backplane.shards();
            metrics::READY.set(usize::from(connections.ready(&shards).is_ok()));
            let webhooks = poster::render_lags(&connections.state);
            Response::of_text(metrics::render() + &render_shards(&shards) + &webhooks)
        }
        Route::Chat { .. } | Route::Api { .. } | Route::Admin(_) | Route::Unknown => {
            Response::new(404, "there is nothing here; chat is at /chat/{your name}")
        }
    }
}

/// The metrics of each server of the backplane.
fn render_shards(shards: &[ShardState]) -> String {
    type ShardMetric = (&'static str, &'static str, fn(&ShardState) -> u64);
    const METRICS: [ShardMetric; 4] = [
        (
            "hubbub_shard_ready",
            "Whether messages can be stored and heard on this server: 1 or 0.",
            |shard| u64::from(shard.trouble.is_none()),
        ),
        (
            "hubbub_shard_waiting",
            "Commands that wait to be sent to this server.",
            |shard| shard.waiting as u64,
        ),
        (
            "hubbub_shard_losses_total",
            "Times the command connection to this server was lost.",
            |shard| shard.losses,
        ),
        (
            "hubbub_shard_cuts_total",
            "Times the subscription at this server was lost.",
            |shard| shard.cuts,
        ),
    ];
    let mut text = String::new();
    for (name, help, value) in METRICS {
        let values = shards.iter().map(|shard| (&shard.name[..], value(shard)));
        metrics::render_labelled(&mut text, name, help, "shard", values);
    }
    text
}
