//! What peers say unasked.

use super::*;

#[test]
fn a_header_on_top_is_an_announcement_and_no_answer() {
    let mut sim = Sim::new([Model::honest(&trunk(10))]);
    sim.run_until_caught_up();
    sim.connect(1, Model { answers_after: 1000, ..Model::honest(&trunk(12)) });
    sim.tell(1, headers(&trunk(11), 11..=11), false);
    assert!(sim.is_at(&trunk(11)), "taken all the same");
    assert_eq!(sim.shown[&PeerId(1)], hash(1, 11));
    assert!(!sim.flow.is_caught_up(), "the answer is still to come");
    sim.run_until_caught_up();
    assert!(sim.is_at(&trunk(12)));
    assert_eq!(sim.asked(1), 1);
}

#[test]
fn known_headers_are_no_answer_to_what_is_on_top() {
    let chain = trunk(100);
    let mut sim = Sim::new([Model::honest(&chain)]);
    sim.run_until_caught_up();
    sim.connect(1, Model::silent(&chain));
    for unasked in [60..=99, 29..=60, 80..=95, 99..=100] {
        sim.tell(1, headers(&chain, unasked), false);
        assert!(!sim.flow.is_caught_up(), "still to be answered");
    }
    assert_eq!(sim.shown[&PeerId(1)], chain[100], "yet it has shown what it has");
    sim.tell(1, headers(&chain, 100..=100), false);
    assert!(sim.flow.is_caught_up());
}

#[test]
fn what_was_shown_is_not_taken_back_by_less() {
    let chain = trunk(100);
    let mut sim = Sim::new([Model::honest(&chain)]);
    sim.run_until_caught_up();
    sim.tell(0, headers(&chain, 1..=50), true);
    sim.handle(FlowInput::Announced(PeerId(0), vec![chain[70]]));
    assert_eq!(sim.shown[&PeerId(0)], chain[100]);
    let before = sim.asked.len();
    sim.run_for(30);
    assert_eq!(sim.asked.len(), before, "nor is it asked for more");
}

#[test]
fn a_full_run_of_new_headers_is_followed() {
    let mut sim = Sim::new([Model::honest(&trunk(10))]);
    sim.run_until_caught_up();
    sim.peers.insert(PeerId(0), Model::honest(&trunk(90)));
    sim.tell(0, headers(&trunk(90), 11..=30), true);
    assert!(!sim.flow.is_caught_up());
    sim.run_until_caught_up();
    assert!(sim.is_at(&trunk(90)));
}

#[test]
fn the_answer_to_a_question_that_another_was_asked_is_harmless() {
    let chain = trunk(200);
    let mut sim = Sim::new([Model::honest(&chain), Model::silent(&chain)]);
    sim.run_until(|sim| sim.tree.best().len() > 30);
    let next = sim.tree.best().len();
    sim.tell(1, headers(&chain, next..=next + BATCH - 1), true);
    assert_eq!(sim.tree.best().len(), next + BATCH);
    assert_eq!(sim.asked(1), 0);
    sim.run_until(|sim| sim.flow.may_fetch());
    assert!(sim.is_at(&chain));
    assert!(sim.dropped.is_empty());
}

#[test]
fn empty_headers_answer_only_a_question() {
    let mut sim = Sim::new([Model::silent(&trunk(10)), Model::silent(&trunk(10))]);
    sim.tell(1, vec![], false);
    assert!(sim.trace.len() == 1 && !sim.flow.may_fetch());
    sim.tell(0, vec![], false);
    assert!(sim.flow.may_fetch());
    sim.tell(0, vec![], false);
    assert!(!sim.flow.is_caught_up());
    sim.tell(1, vec![], false);
    assert!(sim.flow.is_caught_up());
    sim.tell(7, vec![], false);
    sim.tell(7, headers(&trunk(1), 1..=1), false);
    assert!(sim.is_at(&trunk(0)), "strangers are not heard");
}

#[test]
fn an_announcement_that_does_not_link_is_asked_for() {
    let mut sim = Sim::new([Model::honest(&trunk(10)), Model::honest(&trunk(10))]);
    sim.run_until_caught_up();
    for n in 1..10 {
        let chain = trunk(10 + 5 * n);
        sim.peers.insert(PeerId(0), Model::honest(&chain));
        let end = chain.len() - 1;
        sim.tell(0, headers(&chain, end..=end), false);
        sim.run_for(1);
        assert!(sim.is_at(&chain));
    }
    assert!(sim.dropped.is_empty());
}

#[test]
fn announcements_during_the_search_are_no_fault() {
    let chain = trunk(1000);
    let mut sim = Sim::new([Model::honest(&chain), Model::honest(&chain)]);
    for n in 0..10 {
        sim.tell(n % 2, headers(&chain, 900 + n as usize..=900 + n as usize), false);
        sim.run_until(|sim| sim.tree.best().len() > 20 * (n as usize + 1));
    }
    sim.run_until_caught_up();
    assert!(sim.is_at(&chain));
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_foreign_chain_is_dropped() {
    let mut sim = Sim::new([Model::honest(&trunk(10)), Model::honest(&trunk(10))]);
    sim.run_until_caught_up();
    sim.tell(0, headers(&branch(&[], 0, 7, 50), 2..=20), true);
    assert_eq!(sim.dropped, [(PeerId(0), "headers that do not link to the chain".into())]);
    // Announcements that nothing follows are endured a few times.
    for n in 0..4 {
        assert_eq!(sim.dropped.len(), 1);
        sim.tell(1, headers(&branch(&[], 0, 7, 50), 20 + n..=20 + n), false);
        sim.run_for(1);
    }
    assert_eq!(sim.dropped.len(), 2);
}

#[test]
fn hashes_that_nothing_follows_are_not_asked_for_without_end() {
    let mut sim = Sim::new([Model::honest(&trunk(10))]);
    sim.run_until_caught_up();
    let before = sim.asked.len();
    for n in 0..40 {
        sim.handle(FlowInput::Announced(PeerId(0), vec![hash(8, n + 1)]));
        assert!(sim.flow.is_caught_up());
        sim.run_for(1);
    }
    assert_eq!(sim.asked.len() - before, 3);
    // When its time has come it gets another chance.
    sim.run_for(60);
    sim.peers.insert(PeerId(0), Model::honest(&trunk(11)));
    sim.handle(FlowInput::Announced(PeerId(0), vec![hash(1, 11)]));
    sim.run_for(1);
    assert!(sim.is_at(&trunk(11)));
    assert!(sim.dropped.is_empty());
}

#[test]
fn an_announced_block_that_is_known_is_shown() {
    let mut sim = Sim::new([Model::honest(&trunk(10)), Model::silent(&trunk(10))]);
    sim.run_until(|sim| sim.flow.may_fetch());
    sim.handle(FlowInput::Announced(PeerId(1), vec![hash(1, 9), hash(1, 10)]));
    assert_eq!(sim.shown[&PeerId(1)], hash(1, 10));
}
