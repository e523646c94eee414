use std::time::Duration;

use crate::mix::{self, Plan};
use crate::support::server;

#[test]
fn clients_of_all_kinds_do_not_disturb_each_other() {
    let server = server();
    let time = Duration::from_secs(3);
    let plan = Plan { address: server.address(), clients: 6, time, is_tame: false };
    let report = mix::run(&plan).expect("answers");
    assert!(report.faults.is_empty(), "{report}");
    assert!(report.complete > 0 && report.left > 0 && report.refused > 0, "{report}");
    // Those that were left have been ended.
    server.wait_for_cancelled(0);
    assert_eq!(server.get("/health").answer()["status"], "ok");
}
