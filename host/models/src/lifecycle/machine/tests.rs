//! The machine by example, and in a world that does what it says at random times.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEEPS: Facts = Facts { bytes: 100, is_pinned: false, keep_alive_ms: None };

fn machine(budget: u64, facts: &[Facts]) -> Machine {
    let mut machine = Machine::new(budget, 64);
    for (at, facts) in facts.iter().enumerate() {
        machine.add(Key(at as u64), *facts);
    }
    machine
}

/// Asks for a cold model and has it loaded at once.
fn load(machine: &mut Machine, key: u64, ticket: u64, now: u64) -> Incarnation {
    let (asked, effects) = machine.ask(Key(key), Ticket(ticket), now);
    assert_eq!(asked, Asked::Waiting);
    assert_eq!(effects, [Effect::Load(Key(key))]);
    let bytes = machine.entries[&Key(key)].facts.bytes;
    match machine.loaded(Key(key), bytes, 10, now)[..] {
        [Effect::Grant(granted, of, incarnation)] if granted == Ticket(ticket) && of == Key(key) => incarnation,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_ready_model_is_had_at_once_and_a_cold_one_after_its_load() {
    let mut machine = machine(100, &[KEEPS]);
    let first = load(&mut machine, 0, 1, 0);
    assert_eq!(machine.ask(Key(0), Ticket(2), 5), (Asked::Granted(first), Vec::new()));
    assert_eq!(machine.state(Key(0), 5), Some(("ready", 2)));
    assert_eq!(machine.ask(Key(9), Ticket(3), 5).0, Asked::Refused(Refused::Unknown));
}

#[test]
fn adapters_count_with_their_base() {
    let mut machine = machine(100, &[Facts { bytes: 60, ..KEEPS }, Facts { bytes: 40, ..KEEPS }]);
    load(&mut machine, 0, 1, 0);
    let idle = load(&mut machine, 1, 2, 10);
    assert_eq!(machine.returned(Key(1), idle, 20), []);
    assert_eq!(machine.set_adapters(Key(0), 20, 2_000), [Effect::Unload(Key(1))], "the base is in use");
    assert_eq!(machine.unloaded(Key(1), 2_010), []);
    assert_eq!((machine.held(), machine.has_room(Key(1))), (80, false));
    assert_eq!(machine.set_adapters(Key(0), 0, 2_020), []);
    assert!(machine.has_room(Key(1)));
    machine.set_adapters(Key(0), 50, 2_030);
    assert_eq!(machine.too_large(Key(0)), Some(Refused::TooLarge { needs: 110, budget: 100, pinned: 0 }));
}

#[test]
fn an_idle_model_makes_room_and_a_leased_one_serves_its_turn_first() {
    let mut machine = machine(100, &[KEEPS, KEEPS]);
    let lease = load(&mut machine, 0, 1, 0);
    // Another one is asked for: the first one is in use and in its turn.
    assert_eq!(machine.ask(Key(1), Ticket(2), 10), (Asked::Waiting, Vec::new()));
    assert!(matches!(machine.ask(Key(0), Ticket(3), 20).0, Asked::Granted(_)), "its turn is not over");
    let turn_ends = machine.next_tick().expect("the turn ends");
    assert_eq!(turn_ends, 500);
    assert_eq!(machine.tick(turn_ends), []);
    assert_eq!(machine.state(Key(0), turn_ends), Some(("draining", 2)));
    // Who comes now waits behind the other.
    assert_eq!(machine.ask(Key(0), Ticket(4), 600), (Asked::Waiting, Vec::new()));
    assert_eq!(machine.returned(Key(0), lease, 700), []);
    assert_eq!(machine.returned(Key(0), lease, 800), [Effect::Unload(Key(0))]);
    assert_eq!(machine.unloaded(Key(0), 810), [Effect::Load(Key(1))]);
    let effects = machine.loaded(Key(1), 100, 10, 820);
    let [Effect::Grant(Ticket(2), Key(1), other)] = effects[..] else { panic!("{effects:?}") };
    // The first one is waited for, and comes when the second has had its turn.
    assert_eq!(machine.returned(Key(1), other, 900), []);
    assert_eq!(machine.next_tick(), Some(1_000), "a request may be on its way");
    assert_eq!(machine.tick(1_000), [Effect::Unload(Key(1))]);
    assert_eq!(machine.unloaded(Key(1), 1_001), [Effect::Load(Key(0))]);
    assert!(matches!(machine.loaded(Key(0), 100, 10, 1_010)[..], [Effect::Grant(Ticket(4), ..)]));
}

#[test]
fn who_drains_serves_again_when_the_claim_is_given_up() {
    let mut machine = machine(100, &[KEEPS, KEEPS]);
    load(&mut machine, 0, 1, 0);
    assert_eq!(machine.ask(Key(1), Ticket(2), 600), (Asked::Waiting, Vec::new()));
    assert_eq!(machine.ask(Key(0), Ticket(3), 610), (Asked::Waiting, Vec::new()));
    assert!(matches!(machine.leave(Ticket(2), 620)[..], [Effect::Grant(Ticket(3), Key(0), _)]));
}

#[test]
fn what_is_pinned_stays_and_what_cannot_fit_beside_it_is_refused_with_its_figures() {
    let pinned = Facts { is_pinned: true, ..KEEPS };
    let mut machine = machine(150, &[pinned, KEEPS, Facts { bytes: 200, ..KEEPS }]);
    let lease = load(&mut machine, 0, 1, 0);
    machine.returned(Key(0), lease, 1);
    let refused = Asked::Refused(Refused::TooLarge { needs: 100, budget: 150, pinned: 100 });
    assert_eq!(machine.ask(Key(1), Ticket(2), 10_000).0, refused);
    let refused = Asked::Refused(Refused::TooLarge { needs: 200, budget: 150, pinned: 100 });
    assert_eq!(machine.ask(Key(2), Ticket(3), 10_000).0, refused);
    assert_eq!(machine.pin(Key(0), false, 10_001), []);
    assert_eq!(machine.ask(Key(1), Ticket(4), 10_002).1, [Effect::Unload(Key(0))]);
}

#[test]
fn a_failed_load_rests_longer_each_time_and_one_that_died_first_comes_back_at_once() {
    let mut machine = machine(100, &[KEEPS]);
    assert_eq!(machine.ask(Key(0), Ticket(1), 0).1, [Effect::Load(Key(0))]);
    assert_eq!(machine.failed(Key(0), 0), [Effect::Refuse(Ticket(1), Key(0), Refused::LoadFailed)]);
    assert_eq!(machine.ask(Key(0), Ticket(2), 400).0, Asked::Refused(Refused::Resting { for_ms: 600 }));
    assert_eq!(machine.ask(Key(0), Ticket(3), 1_000).1, [Effect::Load(Key(0))]);
    machine.failed(Key(0), 1_000);
    assert_eq!(machine.ask(Key(0), Ticket(4), 2_000).0, Asked::Refused(Refused::Resting { for_ms: 1_000 }));
    machine.wake(Key(0));
    let lease = load(&mut machine, 0, 5, 2_001);
    let long_after = 1_000_000;
    assert_eq!(machine.died(Key(0), long_after), [Effect::Unload(Key(0))]);
    assert_eq!(machine.returned(Key(0), lease, long_after), []);
    assert_eq!(machine.ask(Key(0), Ticket(6), long_after).0, Asked::Waiting);
    assert_eq!(machine.unloaded(Key(0), long_after), [Effect::Load(Key(0))]);
}

#[test]
fn what_nobody_uses_goes_after_its_time_and_what_is_forgotten_at_once() {
    let mut machine = machine(300, &[Facts { keep_alive_ms: Some(5_000), ..KEEPS }, KEEPS]);
    let lease = load(&mut machine, 0, 1, 0);
    let other = load(&mut machine, 1, 2, 0);
    machine.returned(Key(0), lease, 1_000);
    assert_eq!(machine.next_tick(), Some(6_000));
    assert_eq!(machine.tick(6_000), [Effect::Unload(Key(0))]);
    assert_eq!(machine.forget(Key(1), 7_000), []);
    assert_eq!(machine.returned(Key(1), other, 7_001), [Effect::Unload(Key(1))]);
    machine.unloaded(Key(1), 7_002);
    assert_eq!(machine.ask(Key(1), Ticket(3), 7_003).0, Asked::Refused(Refused::Unknown));
}

#[test]
fn a_request_says_how_long_a_model_stays_but_never_longer_than_the_config() {
    let mut machine = machine(300, &[Facts { keep_alive_ms: Some(5_000), ..KEEPS }, KEEPS, KEEPS]);
    for key in 0..2 {
        let lease = load(&mut machine, key, key, 0);
        machine.keep_alive(Key(key), Some(0));
        assert_eq!(machine.tick(1), [], "not while it is used");
        assert_eq!(
            machine.returned(Key(key), lease, 1),
            [Effect::Unload(Key(key))],
            "at once, in the millisecond of the last look"
        );
        assert_eq!(machine.unloaded(Key(key), 2), []);
    }
    // The next time that it is loaded, whoever says nothing finds it as the config has it.
    let lease = load(&mut machine, 1, 5, 2);
    assert_eq!(machine.returned(Key(1), lease, 3), []);
    assert_eq!((machine.next_tick(), machine.unload(Key(1))), (None, Ok(vec![Effect::Unload(Key(1))])));
    assert_eq!(machine.unloaded(Key(1), 3), []);
    for (asked, capped, free) in
        [(Some(3_000), Some(4_000), Some(4_000)), (Some(9_000), Some(6_000), Some(10_000)), (None, Some(6_000), None)]
    {
        for (key, at) in [(0, capped), (1, free)] {
            let lease = load(&mut machine, key, 10 + key, 3);
            machine.keep_alive(Key(key), asked);
            assert_eq!(machine.returned(Key(key), lease, 1_000), []);
            assert_eq!(machine.next_tick(), at, "model {key}, {asked:?}");
            assert_eq!(machine.unload(Key(key)), Ok(vec![Effect::Unload(Key(key))]));
            machine.unloaded(Key(key), 1_001);
        }
    }
    // It pins nothing: room is made as ever.
    let lease = load(&mut machine, 1, 20, 2_000);
    machine.keep_alive(Key(1), None);
    machine.returned(Key(1), lease, 2_001);
    machine.set_limits(100, 64, 10_000);
    assert_eq!(machine.ask(Key(2), Ticket(21), 10_000).1, [Effect::Unload(Key(1))]);
}

#[test]
fn one_that_took_more_than_was_predicted_pushes_idle_ones_out() {
    let mut machine = machine(200, &[KEEPS, KEEPS]);
    let lease = load(&mut machine, 0, 1, 0);
    machine.returned(Key(0), lease, 1);
    machine.ask(Key(1), Ticket(2), 2);
    let effects = machine.loaded(Key(1), 150, 10, 3);
    assert_eq!(effects[1..], [Effect::Unload(Key(0))]);
    assert_eq!(machine.held(), 250, "until it is gone");
}

#[test]
fn a_queue_has_a_bound() {
    let mut machine = machine(100, &[KEEPS]);
    machine.set_limits(100, 1, 0);
    machine.ask(Key(0), Ticket(1), 0);
    assert_eq!(machine.ask(Key(0), Ticket(2), 0).0, Asked::Refused(Refused::QueueFull));
}

/// A claim that needs two models in steady use gets them both: neither is opened again while the other drains.
#[test]
fn a_big_claim_is_met_though_two_models_are_asked_for_all_the_time() {
    let mut world = World::new(100, &[Facts { bytes: 50, ..KEEPS }, Facts { bytes: 50, ..KEEPS }, KEEPS]);
    let ask = |world: &mut World, key: u64| world.step((0, usize::try_from(key).unwrap(), 1));
    for round in 0..400 {
        ask(&mut world, 0);
        ask(&mut world, 1);
        if round == 100 {
            ask(&mut world, 2);
        }
        // Loads and unloads end, and the oldest lease; so that one of the two is always in use.
        for what in [6, 7] {
            world.step((what, 1, 1));
        }
        if world.leases.iter().any(|(key, _)| *key == Key(2)) {
            return;
        }
        if world.leases.len() > 1 || round % 3 == 0 {
            world.step((4, 0, 5));
        }
    }
    panic!("it was never granted: {:?}", world.machine);
}

/// A world around a machine: what it was told to do, and who holds what.
struct World {
    machine: Machine,
    now: u64,
    next_ticket: u64,
    loading: Vec<Key>,
    leaving: Vec<Key>,
    leases: Vec<(Key, Incarnation)>,
    waiting: Vec<Ticket>,
    bytes: BTreeMap<Key, u64>,
}

impl World {
    fn new(budget: u64, facts: &[Facts]) -> Self {
        let bytes = facts.iter().enumerate().map(|(at, facts)| (Key(at as u64), facts.bytes)).collect();
        let machine = machine(budget, facts);
        let (loading, leaving, leases, waiting) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        World { machine, now: 0, next_ticket: 0, loading, leaving, leases, waiting, bytes }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Load(key) => self.loading.push(key),
                Effect::Unload(key) => {
                    assert!(self.leases.iter().all(|(leased, _)| *leased != key), "{key:?} is leased");
                    self.leaving.push(key);
                }
                Effect::Grant(ticket, key, incarnation) => {
                    let at = self.waiting.iter().position(|waiting| *waiting == ticket).expect("it waited");
                    self.waiting.remove(at);
                    self.leases.push((key, incarnation));
                }
                Effect::Refuse(ticket, ..) => {
                    let at = self.waiting.iter().position(|waiting| *waiting == ticket).expect("it waited");
                    self.waiting.remove(at);
                }
            }
        }
        assert!(self.machine.held() <= self.machine.budget(), "{} of {}", self.machine.held(), self.machine.budget());
        assert_eq!(self.machine.waiting(), self.waiting.len());
    }

    fn step(&mut self, (what, which, time): (u8, usize, u64)) {
        self.now += time;
        let pick = |length: usize| which.checked_rem(length);
        let effects = match what {
            0..=3 => {
                let (ticket, key) = (Ticket(self.next_ticket), Key(which as u64 % self.bytes.len() as u64));
                self.next_ticket += 1;
                if which % 5 == 0 {
                    self.machine.keep_alive(key, (which % 2 == 0).then_some(time));
                }
                let (asked, effects) = self.machine.ask(key, ticket, self.now);
                match asked {
                    Asked::Granted(incarnation) => self.leases.push((key, incarnation)),
                    Asked::Waiting => self.waiting.push(ticket),
                    Asked::Refused(_) => {}
                }
                effects
            }
            4 | 5 => match pick(self.leases.len()) {
                Some(at) => {
                    let (key, incarnation) = self.leases.swap_remove(at);
                    self.machine.returned(key, incarnation, self.now)
                }
                None => Vec::new(),
            },
            6 => match pick(self.loading.len()) {
                Some(at) => {
                    let key = self.loading.swap_remove(at);
                    if which % 7 == 0 {
                        self.machine.failed(key, self.now)
                    } else {
                        self.machine.loaded(key, self.bytes[&key], time, self.now)
                    }
                }
                None => Vec::new(),
            },
            7 => match pick(self.leaving.len()) {
                Some(at) => {
                    let key = self.leaving.swap_remove(at);
                    self.machine.unloaded(key, self.now)
                }
                None => Vec::new(),
            },
            8 => match pick(self.waiting.len()) {
                Some(at) => {
                    let ticket = self.waiting.swap_remove(at);
                    self.machine.leave(ticket, self.now)
                }
                None => Vec::new(),
            },
            _ => self.machine.tick(self.now),
        };
        self.take(effects);
    }

    /// Everything that was begun ends, leases are returned, and time goes on by itself.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            let begun = self.loading.len() + self.leaving.len() + self.leases.len();
            if begun == 0 && self.waiting.is_empty() {
                return;
            }
            if begun > 0 {
                let what = if !self.loading.is_empty() {
                    6
                } else if !self.leaving.is_empty() {
                    7
                } else {
                    4
                };
                self.step((what, 1, 1));
            } else {
                let next = self.machine.next_tick().expect("somebody waits, nothing is under way, and no time is set");
                self.step((9, 0, next.saturating_sub(self.now)));
            }
        }
        panic!("it does not settle: {:?}", self.machine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// P-L2, P-U4: never over the budget, never without what is leased, and everybody who waits is served or told.
    #[test]
    fn bytes_hold_and_nobody_waits_for_ever(
        budget in 100_u64..400,
        sizes in proptest::collection::vec((1_u64..250, any::<bool>()), 1..6),
        steps in proptest::collection::vec((0_u8..10, 0_usize..1_000, 0_u64..400), 0..250),
    ) {
        let facts = sizes.iter().enumerate().map(|(at, (bytes, is_kept))| Facts {
            bytes: *bytes,
            is_pinned: at == 4,
            keep_alive_ms: is_kept.then_some(1_000),
        });
        let mut world = World::new(budget, &facts.collect::<Vec<_>>());
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
