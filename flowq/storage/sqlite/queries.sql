-- Every statement of the store, by name. A list of ids is bound as one JSON array.

-- name: begin
UPDATE store SET tick = tick + 1, next_id = next_id + ? RETURNING tick, next_id, seen_ms,
EXISTS(SELECT 1 FROM run WHERE paused = 1), EXISTS(SELECT 1 FROM rewind)
-- name: set_seen
UPDATE store SET seen_ms = ?

-- --- queues

-- name: queues
SELECT id, name FROM queue
-- name: add_queue
INSERT INTO queue(name, ready) VALUES (?, 0) RETURNING id
-- name: count_ready
UPDATE queue SET ready = ready + ? WHERE id = ?
-- name: ready
SELECT id, ready FROM queue WHERE id IN (SELECT value FROM json_each(?))

-- --- taking in

-- name: add_single
INSERT INTO message(id, uuid, state, flags, queue, prio, rank, due_ms, ready_ms, expires_ms, keep_ms, failed_keep_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(uuid) WHERE uuid IS NOT NULL DO NOTHING
-- name: add_body
INSERT INTO plan(id, body) VALUES (?, ?)
-- name: known
SELECT m.id, CASE WHEN m.run IS NULL THEN m.forget_ms ELSE r.forget_ms END, m.run
FROM message m LEFT JOIN run r ON r.id = m.run WHERE m.uuid = ?
-- name: add_node
INSERT INTO message(id, run, state, flags, queue, prio, rank, ready_ms, owner, parents, rule)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
-- name: add_row
INSERT INTO plan(id, name, task, parents, children, lenient, reads, followers, follows, entries, inside, value, tolerate, later, owns, sleep_ms, signal, limits, blocked, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
-- name: add_expansion
INSERT INTO expansion(id, unfinished, need, most, deadline_ms) VALUES (?, ?, ?, ?, ?)
-- name: add_run
INSERT INTO run(uuid, base, nodes, name, live, created_ms, forget_ms, keep_ms, failed_keep_ms)
VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?) RETURNING id
-- name: upload
SELECT id, live, forget_ms FROM run WHERE uuid = ?
-- name: uploading
SELECT 1 FROM run WHERE id = ? AND uuid = ? AND live = 0
-- name: abandon
UPDATE run SET uuid = NULL, live = 0, forget_ms = 0 WHERE id = ?
-- name: go_live
UPDATE run SET live = 1, forget_ms = NULL WHERE id = ?

-- name: parent_single
SELECT -id, state, flags FROM message WHERE uuid = ?1 AND run IS NULL AND (forget_ms IS NULL OR forget_ms > ?2)
-- name: parent_node
SELECT m.run, m.state, m.flags FROM run r JOIN message m ON m.id = r.base + ?1
WHERE r.uuid = ?2 AND r.live = 1 AND m.run = r.id AND (r.forget_ms IS NULL OR r.forget_ms > ?3)
-- name: add_started
INSERT INTO started(owner, parent, child) VALUES (?, ?, ?)
-- name: started
SELECT parent, child FROM started WHERE owner = ?1
AND id > COALESCE((SELECT max(id) FROM started WHERE child = ?2 AND owner = ?1), 0) ORDER BY id LIMIT ?3
-- name: started_by_run
UPDATE started SET owner = ? WHERE owner = ?
-- name: drop_started
DELETE FROM started WHERE owner IN (SELECT value FROM json_each(?))
-- name: drop_started_of
DELETE FROM started WHERE id IN (SELECT id FROM started WHERE owner = ? LIMIT ?)

-- --- forks

-- name: take_ids
UPDATE store SET next_id = next_id + ? RETURNING next_id
-- name: kept_as
SELECT name, nodes, keep_ms, failed_keep_ms FROM run WHERE id = ?
-- name: copy_nodes
INSERT INTO message(id, run, state, flags, queue, prio, rank, ready_ms, expires_ms, delivery, attempt, generation, owner,
parents, succeeded, failed, skipped, cancelled, rule, culprit, cell)
SELECT id + ?1, ?2, state, flags, queue, prio, rank, ready_ms, expires_ms, delivery, attempt, generation, owner + ?1,
parents, succeeded, failed, skipped, cancelled, rule, culprit, cell FROM message WHERE id BETWEEN ?3 AND ?4 AND run = ?5
-- name: copy_expansions
INSERT INTO expansion(id, turn, unfinished, failures, cancels, skips, culprit, need, won, most, under, deadline_ms, marks, outcome)
SELECT id + ?1, turn, unfinished, failures, cancels, skips, culprit, need, won, most, under, deadline_ms, marks, outcome
FROM expansion WHERE id BETWEEN ?2 AND ?3
-- name: copy_along
INSERT INTO along(leader, own, first, count) SELECT leader + ?1, own + ?1, first + ?1, count FROM along WHERE leader BETWEEN ?2 AND ?3
-- name: copy_growth
INSERT INTO growth(first, run, count, live, done, node, delivery)
SELECT first + ?1, ?2, count, live, done, node + ?1, delivery FROM growth WHERE run = ?3 AND live = 1
-- name: rows_to_copy
SELECT id, name, task, parents, children, lenient, reads, followers, follows, entries, inside, value, tolerate, later, owns, sleep_ms, signal, limits, blocked, body
FROM plan WHERE id BETWEEN ? AND ? ORDER BY id
-- name: run_another
UPDATE message SET flags = ?, queue = ?, prio = ? WHERE id = ?
-- name: say_another
UPDATE plan SET task = ?, limits = ?, body = ? WHERE id = ?

-- --- growing

-- name: held_single
SELECT m.id, m.run, m.flags FROM message m JOIN session s ON s.id = m.session
WHERE m.uuid = ?1 AND s.name = ?2 AND m.delivery = ?3
-- name: held_node
SELECT m.id, m.run, m.flags FROM run r JOIN message m ON m.id = r.base + ?1 AND m.run = r.id JOIN session s ON s.id = m.session
WHERE r.uuid = ?2 AND s.name = ?3 AND m.delivery = ?4
-- name: growth_of
SELECT g.first, g.run, g.done FROM growth g JOIN run r ON r.id = g.run
WHERE g.node = ? AND g.delivery = ? AND g.live = 0 AND r.uuid IS NOT NULL
-- name: given_up
SELECT g.first, g.done FROM growth g JOIN run r ON r.id = g.run LEFT JOIN message m ON m.id = g.node
WHERE g.live = 0 AND r.live = 1 AND (m.session IS NULL OR m.delivery <> g.delivery) LIMIT 1
-- name: add_growth
INSERT INTO growth(run, first, count, node, delivery) VALUES (?, ?, ?, ?, ?)
-- name: uploaded
UPDATE growth SET done = ? WHERE first = ?
-- name: growth_live
UPDATE growth SET live = 1 WHERE first = ?
-- name: drop_growth
DELETE FROM growth WHERE first = ?
-- name: growth
SELECT first, count FROM growth WHERE run = ? AND live = 1 ORDER BY first
-- name: last_growth
SELECT first, count FROM growth WHERE run = ? ORDER BY first DESC LIMIT 1
-- name: root_of
INSERT INTO message(id, run, state, flags, queue, prio, rank, ready_ms, delivery, attempt, losses)
SELECT ?1, ?2, 5, ?3, queue, prio, rank, ready_ms, ?4, ?5, ?6 FROM message WHERE id = ?7
-- name: root_plan
INSERT INTO plan(id, name, task, body) SELECT ?1, r.name, r.name, p.body FROM plan p JOIN run r ON r.id = ?3 WHERE p.id = ?2
-- name: root_known
UPDATE message SET uuid = ? WHERE id = ?
-- name: expanded
UPDATE message SET state = 5, flags = ?, session = NULL WHERE id = ?
-- name: become
UPDATE plan SET entries = ?, inside = ?, value = ?, tolerate = ?, later = ? WHERE id = ?

-- --- settling

-- name: holds
SELECT m.id, COALESCE(m.uuid, r.uuid), m.id - r.base, m.run, m.flags, m.delivery, m.attempt, m.losses, m.owner, m.keep_ms, m.failed_keep_ms, m.queue
FROM message m LEFT JOIN run r ON r.id = m.run WHERE m.session = ?
-- name: verdict_single
SELECT state, flags, delivery FROM message WHERE uuid = ?
-- name: verdict_node
SELECT m.state, m.flags, m.delivery FROM run r JOIN message m ON m.id = r.base + ? WHERE r.uuid = ? AND m.run = r.id
-- name: succeed
UPDATE message SET state = 6, flags = flags | 8, forget_ms = ?, session = NULL, cell = ?
WHERE id = ? AND session = ? AND delivery = ? AND flags & 2147483652 = 0
-- name: end
UPDATE message SET state = ?, flags = ?, forget_ms = ?, session = NULL, cell = ? WHERE id = ?
-- name: count_child
UPDATE message SET succeeded = ?, failed = ?, skipped = ?, cancelled = ?, culprit = ? WHERE id = ?
-- name: start_child
UPDATE message SET succeeded = ?, failed = ?, skipped = ?, cancelled = ?, culprit = ?, state = 3, rank = ?, ready_ms = ? WHERE id = ?
-- name: start
UPDATE message SET state = ?, rank = ?, ready_ms = ?, due_ms = ?, expires_ms = ?, gate = ? WHERE id = ?
-- name: set_ready
UPDATE message SET ready_ms = ? WHERE id = ?
-- name: again
UPDATE message SET state = ?, flags = ?, rank = ?, due_ms = ?, attempt = ?, losses = ?, session = NULL WHERE id = ?
-- name: unknown
UPDATE message SET unknown_ms = COALESCE(unknown_ms, ?) WHERE id = ? RETURNING unknown_ms
-- name: children
SELECT id, children FROM plan WHERE id IN (SELECT value FROM json_each(?))
-- name: lenient
SELECT lenient FROM plan WHERE id = ?
-- name: body_of
SELECT m.run, p.entries, p.inside, p.later, e.unfinished, CASE WHEN m.flags & 536870912 THEN 0 ELSE e.most END
FROM message m JOIN plan p ON p.id = m.id LEFT JOIN expansion e ON e.id = m.id WHERE m.id = ?
-- name: waiting
SELECT m.id, m.run, m.state, m.flags, m.queue, m.owner, m.parents, m.succeeded, m.failed, m.skipped, m.cancelled, m.rule, m.culprit, e.marks
FROM message m LEFT JOIN expansion e ON e.id = m.owner WHERE m.id IN (SELECT value FROM json_each(?)) ORDER BY m.id
-- name: count_expansion
UPDATE expansion SET unfinished = unfinished - ?1, failures = failures + ?2, cancels = cancels + ?3, skips = skips + ?4,
culprit = CASE WHEN ?2 > 0 AND failures = 0 THEN ?5 ELSE culprit END
WHERE id = ?6 RETURNING unfinished, failures, cancels, skips, culprit, turn, marks, outcome, need, won, due_ms
-- name: expansion_row
SELECT id, run, state, flags, owner FROM message WHERE id = ?
-- name: template
SELECT value FROM plan WHERE id = ?

-- --- phases

-- name: standing
SELECT m.run, m.state, e.turn, e.marks, p.later FROM expansion e JOIN message m ON m.id = e.id JOIN plan p ON p.id = e.id WHERE e.id = ?
-- name: own_groups
SELECT inside, later FROM plan WHERE id = ?
-- name: follows
SELECT tolerate, later FROM plan WHERE id = ?
-- name: keep_cell
UPDATE message SET cell = ? WHERE id = ?
-- name: group
SELECT COALESCE(sum(state < 6), 0), COALESCE(sum(state BETWEEN 1 AND 5), 0),
COALESCE(sum(state IN (7, 8) AND NOT flags & 64 AND NOT (state = 7 AND flags & 512)), 0),
COALESCE(sum(state = 10 AND NOT flags & 64), 0), COALESCE(sum(state = 9 AND flags & 128 > 0), 0)
FROM message WHERE id BETWEEN ? AND ?
-- name: blame_itself
UPDATE expansion SET culprit = ? WHERE id = ?
-- name: next_turn
UPDATE expansion SET turn = ?, unfinished = ?, failures = ?, cancels = ?, skips = ?, marks = ?, outcome = ? WHERE id = ?
-- name: close_off
UPDATE expansion SET marks = marks | 2 WHERE id = ? AND marks & 2 = 0 RETURNING turn
-- name: set_marks
UPDATE expansion SET marks = ? WHERE id = ?
-- name: fell_back
UPDATE message SET state = 5, flags = ?, session = NULL, cell = ? WHERE id = ?
-- name: add_fallen
INSERT INTO expansion(id, unfinished, culprit) VALUES (?, 0, ?)

-- --- what is not wanted any more

-- name: lacks
SELECT need - won FROM expansion WHERE id = ?
-- name: won
UPDATE expansion SET won = won + 1 WHERE id = ?
-- name: parents
SELECT parents FROM plan WHERE id = ?
-- name: winner
SELECT id FROM message WHERE id BETWEEN ? AND ? AND state = 6 ORDER BY id LIMIT 1
-- name: doomed_by
SELECT blocked FROM plan WHERE id = ?
-- name: owned
SELECT owns FROM plan WHERE id = ?
-- name: sleep
SELECT sleep_ms FROM plan WHERE id = ?

-- --- how many may be under way

-- name: room
SELECT most - under FROM expansion WHERE id = ?
-- name: under
UPDATE expansion SET under = under + ? WHERE id = ?
-- name: filling
SELECT m.state, m.flags, e.turn, e.marks, e.after, p.entries
FROM expansion e JOIN message m ON m.id = e.id JOIN plan p ON p.id = e.id WHERE e.id = ?
-- name: next_waiting
SELECT id FROM message WHERE id BETWEEN ? AND ? AND state = 0 ORDER BY id LIMIT ?
-- name: begun_up_to
UPDATE expansion SET after = ? WHERE id = ?
-- name: waits_on
UPDATE expansion SET after = min(after, ? - 1) WHERE id = ?

-- name: able
UPDATE message SET due_ms = ? WHERE id = ?
-- name: next_able
SELECT id FROM message WHERE owner = ? AND state = 0 AND due_ms IS NOT NULL ORDER BY id LIMIT ?

-- --- item by item

-- name: add_along
INSERT INTO along(leader, own, first, count) VALUES (?, ?, ?, ?)
-- name: along
SELECT own, first, count FROM along WHERE leader = ? ORDER BY own
-- name: followers
SELECT followers FROM plan WHERE id = ?
-- name: paced
SELECT m.id, p.parents FROM message m JOIN plan p ON p.id = m.id JOIN message o ON o.id = m.owner
WHERE m.id IN (SELECT value FROM json_each(?)) AND o.state = 5
-- name: ends_of
SELECT id, state, CASE WHEN state IN (7, 8) THEN substr(cell, 1, ?) END FROM message
WHERE id IN (SELECT value FROM json_each(?)) AND state >= 6
-- name: forget_along
DELETE FROM along WHERE own IN (SELECT value FROM json_each(?1)) OR leader IN (SELECT value FROM json_each(?1))
-- name: drop_along
DELETE FROM along WHERE leader BETWEEN ? AND ?

-- --- pauses

-- name: pause
UPDATE run SET paused = 1 WHERE id = ? AND ended_ms = 0
-- name: go_on
UPDATE run SET paused = 0 WHERE id = ? AND paused = 1
-- name: paused
SELECT id FROM run WHERE paused = 1 AND id IN (SELECT value FROM json_each(?))
-- name: hold
UPDATE message SET state = 2, gate = NULL WHERE id = ?
-- name: held_of
SELECT id, flags, queue FROM message WHERE run = ? AND state = 2 AND gate IS NULL
AND NOT (flags & 2147483648 AND EXISTS(SELECT 1 FROM parked k WHERE k.node = message.id AND k.state > 0)) ORDER BY id LIMIT ?
-- name: free
UPDATE message SET state = 3, rank = ? WHERE id = ?

-- --- limits

-- name: limits
SELECT limits FROM plan WHERE id = ?
-- name: gate
SELECT g.id, (SELECT count(*) FROM place p WHERE p.gate = g.id) FROM gate g WHERE g.run = ? AND g.key = ?
-- name: gate_of
SELECT run, key FROM gate WHERE id = ?
-- name: add_gate
INSERT INTO gate(run, key) VALUES (?, ?) RETURNING id
-- name: drop_gate
DELETE FROM gate WHERE id = ?1 AND NOT EXISTS(SELECT 1 FROM place WHERE gate = ?1)
AND NOT EXISTS(SELECT 1 FROM message WHERE gate = ?1 AND state = 2)
-- name: drop_gates_of
DELETE FROM gate WHERE run = ?
-- name: take_place
INSERT OR IGNORE INTO place(gate, node) VALUES (?, ?)
-- name: leave_place
DELETE FROM place WHERE gate = ? AND node = ?
-- name: wait_at
UPDATE message SET state = 2, gate = ?, rank = ?, due_ms = NULL WHERE id = ?
-- name: waiters
SELECT m.id, m.run, m.queue, p.limits FROM message m JOIN plan p ON p.id = m.id
WHERE m.gate = ? AND m.state = 2 ORDER BY m.prio DESC, m.rank, m.id LIMIT ?
-- name: waiting_at
SELECT count(*) FROM message WHERE gate = ? AND state = 2
-- name: holders
SELECT p.node, r.uuid, p.node - r.base FROM place p JOIN message m ON m.id = p.node JOIN run r ON r.id = m.run
WHERE p.gate = ? ORDER BY p.node LIMIT ?
-- name: limits_of
SELECT r.id, p.limits FROM run r JOIN message m ON m.id = r.base + ?1 JOIN plan p ON p.id = m.id
WHERE r.uuid = ?2 AND r.live = 1 AND m.run = r.id AND m.flags & 3 = 0 AND (r.forget_ms IS NULL OR r.forget_ms > ?3)
-- name: has_place
SELECT count(*) FROM gate g JOIN place p ON p.gate = g.id WHERE g.run = ? AND g.key = ? AND p.node = ?
-- name: check_gates
SELECT m.id, m.gate, p.limits, (SELECT count(*) FROM place x WHERE x.gate = m.gate) FROM message m JOIN plan p ON p.id = m.id
WHERE m.run = ? AND m.state = 2 AND m.gate IS NOT NULL ORDER BY m.prio DESC, m.rank, m.id

-- --- what is sent

-- name: awaited
SELECT name, signal, value FROM plan WHERE id = ?
-- name: await
INSERT INTO awaiting(node, run, signal, since_ms) VALUES (?, ?, ?, ?)
-- name: await_no_more
DELETE FROM awaiting WHERE node = ?
-- name: taker
SELECT a.node FROM awaiting a JOIN plan p ON p.id = a.node WHERE a.run = ?1 AND a.signal = ?2
AND (?3 = '' OR p.name = ?3 OR substr(p.name, 1, length(?3) + 1) = ?3 || '/') ORDER BY a.since_ms, a.node LIMIT 1
-- name: kept
SELECT id, body FROM sent WHERE run = ?1 AND name = ?2 AND node IS NULL
AND (recipient = '' OR recipient = ?3 OR substr(?3, 1, length(recipient) + 1) = recipient || '/') ORDER BY id LIMIT 1
-- name: take
UPDATE sent SET node = ? WHERE id = ?
-- name: add_sent
INSERT INTO sent(run, name, recipient, key, who, at_ms, node, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
-- name: sent_with
SELECT 1 FROM sent WHERE run = ? AND key = ? AND key <> ''
-- name: sent
SELECT name, recipient, key, who, at_ms, node FROM sent WHERE run = ? ORDER BY id
-- name: drop_sent_of
DELETE FROM sent WHERE id IN (SELECT id FROM sent WHERE run = ? LIMIT ?)

-- --- time

-- name: set_deadline
UPDATE expansion SET due_ms = ? + deadline_ms WHERE id = ? AND deadline_ms > 0
-- name: drop_deadline
UPDATE expansion SET due_ms = NULL WHERE id = ?
-- name: deadlines
SELECT due_ms, id FROM expansion WHERE due_ms <= ? ORDER BY due_ms, id LIMIT ?
-- name: called
SELECT name, task FROM plan WHERE id = ?

-- --- edges that are left

-- name: body
SELECT body FROM plan WHERE id = ?
-- name: end_run
UPDATE run SET ended_ms = ?, paused = 0, forget_ms = ? + max(CASE WHEN ? THEN failed_keep_ms ELSE keep_ms END, ?) WHERE id = ?
-- name: run_of
SELECT uuid, base FROM run WHERE id = ?
-- name: add_walk
INSERT INTO walk(node, state, culprit, position) VALUES (?, ?, ?, ?)
-- name: walks
SELECT id, node, state, culprit, position FROM walk ORDER BY id LIMIT ?
-- name: drop_walk
DELETE FROM walk WHERE id = ?
-- name: walks_of
SELECT 1 FROM walk w JOIN message m ON m.id = w.node WHERE m.run IN (SELECT value FROM json_each(?)) LIMIT 1

-- --- generations

-- name: add_rewind
INSERT INTO rewind(run, chosen, reopened, dropped) VALUES (?, ?, ?, ?)
-- name: rewind
SELECT w.chosen, w.reopened, w.dropped FROM message m JOIN rewind w ON w.run = m.run WHERE m.id = ?
-- name: rewinding
SELECT 1 FROM rewind WHERE run = ?
-- name: drop_rewind
DELETE FROM rewind WHERE run = (SELECT run FROM message WHERE id = ?)
-- name: reopen_run
UPDATE run SET ended_ms = 0, forget_ms = NULL, request = NULL WHERE id = ?
-- name: reopen_root
UPDATE message SET state = 5, flags = flags & ~2148007944, generation = ?, cell = NULL, session = NULL WHERE id = ?
-- name: reopen
UPDATE message SET state = 5, flags = flags & ~2148007944, generation = generation + 1, cell = NULL WHERE id IN (SELECT value FROM json_each(?))
-- name: ask_again
UPDATE message SET state = 0, ready_ms = NULL, due_ms = NULL, succeeded = 0, failed = 0, skipped = 0, cancelled = 0, culprit = NULL
WHERE id IN (SELECT value FROM json_each(?))
-- name: to_reopen
SELECT m.id, m.flags, m.owner, o.state FROM message m LEFT JOIN message o ON o.id = m.owner
WHERE m.id IN (SELECT value FROM json_each(?)) AND m.state >= 6 ORDER BY m.id
-- name: expanded_of
SELECT id FROM message WHERE id IN (SELECT value FROM json_each(?)) AND state = 5
-- name: root_of_run
SELECT r.id, r.base, m.state, m.generation FROM run r JOIN message m ON m.id = r.base
WHERE r.uuid = ?1 AND r.live = 1 AND (r.forget_ms IS NULL OR r.forget_ms > ?2)
-- name: to_renew
SELECT m.id, m.run, m.state, m.flags, m.queue, p.task, p.inside, p.later FROM message m JOIN plan p ON p.id = m.id WHERE m.id IN (SELECT value FROM json_each(?))
-- name: renew_node
UPDATE message SET state = 0, flags = ?, generation = generation + 1, due_ms = NULL, ready_ms = NULL, expires_ms = NULL,
attempt = 0, losses = 0, unknown_ms = NULL, succeeded = 0, failed = 0, skipped = 0, cancelled = 0, culprit = NULL, gate = NULL, cell = NULL WHERE id = ?
-- name: unbecome
UPDATE plan SET entries = NULL, value = NULL, tolerate = 0, inside = ?, later = ? WHERE id = ?
-- name: renew_expansion
UPDATE expansion SET turn = 0, unfinished = ?, failures = ?, cancels = ?, skips = ?, culprit = ?, won = ?, under = ?, after = 0, due_ms = NULL, marks = 0, outcome = NULL WHERE id = ?
-- name: to_count
SELECT m.id, m.flags, p.parents, p.follows FROM message m JOIN plan p ON p.id = m.id WHERE m.id IN (SELECT value FROM json_each(?)) AND m.state = 0 AND p.parents IS NOT NULL
-- name: ended_parents
SELECT state, flags, count(*), min(id) FROM message WHERE id BETWEEN ? AND ? AND state >= 6 GROUP BY state, flags
-- name: has_begun
SELECT flags & 3 = 1 AND ready_ms IS NOT NULL FROM message WHERE id = ?
-- name: lenient_parents
SELECT p.lenient FROM message m JOIN plan p ON p.id = m.id WHERE m.id BETWEEN ? AND ? AND m.state = ? AND m.flags = ?
-- name: blame
SELECT m.state, m.flags, m.culprit, e.culprit FROM message m LEFT JOIN expansion e ON e.id = m.id WHERE m.id = ?
-- name: insides
SELECT id, inside FROM plan WHERE id IN (SELECT value FROM json_each(?))
-- name: inner_states
SELECT state, flags, count(*), min(id) FROM message WHERE id BETWEEN ? AND ? AND owner = ? GROUP BY state, flags
-- name: begun_around
SELECT m.id FROM message m JOIN message o ON o.id = m.owner WHERE m.id IN (SELECT value FROM json_each(?)) AND o.state = 5
-- name: forget_nodes
DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))
-- name: forget_plans
DELETE FROM plan WHERE id IN (SELECT value FROM json_each(?))
-- name: forget_expansions
DELETE FROM expansion WHERE id IN (SELECT value FROM json_each(?))
-- name: forget_losses
DELETE FROM loss WHERE message IN (SELECT value FROM json_each(?))
-- name: forget_growth
DELETE FROM growth WHERE live = 1 AND node IN (SELECT value FROM json_each(?))

-- name: moved
UPDATE run SET changes = changes + 1 WHERE id = ?
-- name: rewound
SELECT run FROM rewind
-- name: root_now
SELECT r.id, r.base, m.state, m.generation, r.changes, r.request FROM run r JOIN message m ON m.id = r.base
WHERE r.uuid = ?1 AND r.live = 1 AND (r.forget_ms IS NULL OR r.forget_ms > ?2)
-- name: under_way
SELECT 1 FROM message m LEFT JOIN parked k ON k.node = m.id
WHERE m.id BETWEEN ? AND ? AND m.run = ? AND m.state IN (4, 5) AND NOT COALESCE(k.state, 0) LIMIT 1
-- name: not_under_way
SELECT 1 FROM message m LEFT JOIN parked k ON k.node = m.id
WHERE m.id BETWEEN ? AND ? AND m.run = ? AND m.state NOT IN (4, 5) AND k.node IS NULL LIMIT 1
-- name: not_parked
SELECT 1 FROM message m LEFT JOIN parked k ON k.node = m.id WHERE m.id BETWEEN ? AND ? AND m.run = ? AND k.node IS NULL LIMIT 1
-- name: cannot_open
SELECT 1 FROM message m LEFT JOIN expansion e ON e.id = m.id LEFT JOIN parked k ON k.node = m.id
WHERE m.id BETWEEN ? AND ? AND m.run = ? AND NOT (m.state >= 6 OR COALESCE(k.state, 0)
OR (m.state = 5 AND e.turn = 0 AND e.marks & 2 = 0)) LIMIT 1
-- name: bounded
SELECT id FROM expansion WHERE most > 0 AND id IN (SELECT value FROM json_each(?))

-- --- parked

-- name: park
INSERT OR IGNORE INTO parked(node, run) SELECT id, run FROM message WHERE id BETWEEN ? AND ? AND run = ?
-- name: mark_parked
UPDATE message SET flags = flags | 2147483648 WHERE id BETWEEN ? AND ? AND run = ?
-- name: ask
UPDATE run SET request = ? WHERE id = ?
-- name: parked
SELECT state, cell, culprit FROM parked WHERE node = ?
-- name: parked_of
SELECT node FROM parked WHERE run = ? ORDER BY node
-- name: park_end
UPDATE parked SET state = ?, cell = ?, culprit = ? WHERE node = ? AND state = 0
-- name: hold_parked
UPDATE message SET state = 2, flags = ?, session = NULL, gate = NULL, due_ms = NULL WHERE id = ?
-- name: forget_parked
DELETE FROM parked WHERE node IN (SELECT value FROM json_each(?))
-- name: unpark
DELETE FROM parked WHERE node = ?

-- --- sessions and losses

-- name: touch_session
INSERT INTO session(name, deadline_ms) VALUES (?, ?)
ON CONFLICT(name) DO UPDATE SET deadline_ms = excluded.deadline_ms RETURNING id, info IS NULL
-- name: open_session
INSERT INTO session(name, deadline_ms, info) VALUES (?, ?, ?)
ON CONFLICT(name) DO UPDATE SET deadline_ms = excluded.deadline_ms, info = excluded.info
-- name: renew
UPDATE session SET deadline_ms = ? WHERE name = ? RETURNING id
-- name: shift_deadlines
UPDATE session SET deadline_ms = deadline_ms + ?
-- name: stops
SELECT m.id, COALESCE(m.uuid, r.uuid), m.id - r.base, m.run FROM message m LEFT JOIN run r ON r.id = m.run
WHERE m.session = ? AND m.flags & 4 ORDER BY m.id
-- name: session
SELECT id, info FROM session WHERE name = ?
-- name: drop_session
DELETE FROM session WHERE id = ?
-- name: dead_sessions
SELECT id, name, info FROM session WHERE deadline_ms <= ? ORDER BY deadline_ms LIMIT ?
-- name: held_by
SELECT id, run, flags, delivery, attempt, losses, queue, owner, keep_ms, failed_keep_ms, uuid FROM message WHERE session = ? ORDER BY rank, id LIMIT ?
-- name: live_sessions
SELECT count(*) FROM session WHERE deadline_ms > ?
-- name: next_deadline
SELECT min(deadline_ms) FROM session WHERE id <> ?
-- name: next_due
SELECT (SELECT min(due_ms) FROM message WHERE state = 1), (SELECT min(due_ms) FROM expansion WHERE due_ms IS NOT NULL)
-- name: sessions
SELECT s.name, s.deadline_ms, s.info, (SELECT count(*) FROM message m WHERE m.session = s.id)
FROM session s WHERE s.deadline_ms > ? ORDER BY s.id
-- name: add_loss
INSERT OR REPLACE INTO loss(message, number, record) VALUES (?, ?, ?)
-- name: losses
SELECT record FROM loss WHERE message = ? ORDER BY number
-- name: drop_losses
DELETE FROM loss WHERE message = ?
-- name: add_dead
INSERT OR REPLACE INTO dead(uuid, reason, at_ms, run, forget_ms, losses, body) VALUES (?, ?, ?, ?, ?, ?, ?)

-- --- handing out

-- name: due
SELECT id, queue, rank, due_ms, flags, run FROM message WHERE state = 1 AND due_ms <= ? ORDER BY due_ms, id LIMIT ?
-- name: queue_due
UPDATE message SET state = 3, rank = ? WHERE id = ?
-- name: next_ready
SELECT -prio, ?1, rank, id, 0, flags, queue, expires_ms, uuid, run, delivery + 1, attempt, losses, owner, keep_ms
FROM message WHERE state = 3 AND losses = 0 AND queue = ?2 ORDER BY prio DESC, rank, id LIMIT ?3
-- name: next_alone
SELECT -prio, ?1, rank, id, 1, flags, queue, expires_ms, uuid, run, delivery + 1, attempt, losses, owner, keep_ms
FROM message WHERE state = 3 AND losses > 0 AND queue = ?2 ORDER BY prio DESC, rank, id LIMIT 1
-- name: hand_out
UPDATE message SET state = 4, session = ?, delivery = delivery + 1, due_ms = ?, flags = flags & ~8
WHERE id IN (SELECT value FROM json_each(?))
-- name: deliveries
SELECT id, body, reads, follows FROM plan WHERE id IN (SELECT value FROM json_each(?))
-- name: delivered_of
SELECT -prio, 0, rank, id, 0, flags, queue, expires_ms, uuid, run, delivery, attempt, losses, owner, keep_ms
FROM message WHERE session = ? ORDER BY due_ms, rank, id
-- name: cells
SELECT id, cell FROM message WHERE id BETWEEN ? AND ? AND run = ? AND cell IS NOT NULL ORDER BY id

-- --- from outside

-- name: find_single
SELECT id, run, state, flags, queue, owner, keep_ms, failed_keep_ms, delivery, culprit, rank, uuid FROM message
WHERE uuid = ?1 AND run IS NULL AND (forget_ms IS NULL OR forget_ms > ?2)
-- name: find_node
SELECT m.id, m.run, m.state, m.flags, m.queue, m.owner, m.keep_ms, m.failed_keep_ms, m.delivery, m.culprit, m.rank, m.uuid
FROM run r JOIN message m ON m.id = r.base + ?1 WHERE r.uuid = ?2 AND r.live = 1 AND m.run = r.id AND (r.forget_ms IS NULL OR r.forget_ms > ?3)
-- name: set_flags
UPDATE message SET flags = ? WHERE id = ?
-- name: move
UPDATE message SET state = ?, due_ms = ?, rank = ? WHERE id = ?
-- name: expired
SELECT id, run, state, flags, queue, owner, keep_ms, failed_keep_ms, delivery, culprit, rank, uuid FROM message
WHERE expires_ms <= ? AND state < 4 AND state <> 2 ORDER BY expires_ms LIMIT ?
-- name: row
SELECT id, run, state, flags, queue, owner, keep_ms, failed_keep_ms, delivery, culprit, rank, uuid FROM message WHERE id = ?

-- --- reading

-- name: look_single
SELECT state, attempt, losses, due_ms, cell FROM message WHERE uuid = ?1 AND run IS NULL AND (forget_ms IS NULL OR forget_ms > ?2)
-- name: look_node
SELECT m.state, m.attempt, m.losses, m.due_ms, m.cell
FROM run r JOIN message m ON m.id = r.base + ?1 WHERE r.uuid = ?2 AND r.live = 1 AND m.run = r.id AND (r.forget_ms IS NULL OR r.forget_ms > ?3)
-- name: message_single
SELECT p.body FROM message m JOIN plan p ON p.id = m.id LEFT JOIN run r ON r.id = m.run
WHERE m.uuid = ?1 AND (m.forget_ms IS NULL OR m.forget_ms > ?2) AND (r.forget_ms IS NULL OR r.forget_ms > ?2)
-- name: message_node
SELECT p.body FROM run r JOIN message m ON m.id = r.base + ?1 JOIN plan p ON p.id = m.id WHERE r.uuid = ?2 AND r.live = 1 AND m.run = r.id AND (r.forget_ms IS NULL OR r.forget_ms > ?3)
-- name: run
SELECT r.uuid, r.name, m.state, r.created_ms, r.ended_ms, r.nodes, p.value, r.base, r.id, r.paused, r.changes, r.request,
r.nodes + COALESCE((SELECT sum(count - 1) FROM growth g WHERE g.run = r.id AND g.live = 1), 0)
FROM run r JOIN message m ON m.id = r.base JOIN plan p ON p.id = r.base
WHERE r.uuid = ?1 AND r.live = 1 AND (r.forget_ms IS NULL OR r.forget_ms > ?2)
-- name: runs
SELECT r.uuid, r.name, m.state, r.created_ms, r.ended_ms, r.nodes, p.value, r.base, r.id, r.paused, r.changes, r.request,
r.nodes + COALESCE((SELECT sum(count - 1) FROM growth g WHERE g.run = r.id AND g.live = 1), 0)
FROM run r JOIN message m ON m.id = r.base JOIN plan p ON p.id = r.base
WHERE r.live = 1 AND (r.forget_ms IS NULL OR r.forget_ms > ?2) AND r.id < COALESCE((SELECT id FROM run WHERE uuid = ?1), 9223372036854775807)
ORDER BY r.id DESC LIMIT ?3
-- name: nodes
SELECT m.id, p.name, p.task, m.flags, m.owner, m.state, m.generation, m.attempt, m.losses, m.ready_ms, m.due_ms, m.cell, p.parents, m.rule, p.signal, x.most, p.follows, x.turn, x.marks, g.key, k.state
FROM message m JOIN plan p ON p.id = m.id LEFT JOIN expansion x ON x.id = m.id LEFT JOIN gate g ON g.id = m.gate LEFT JOIN parked k ON k.node = m.id WHERE m.id BETWEEN ? AND ? ORDER BY m.id LIMIT ?
-- name: nodes_in
SELECT m.id, p.name, p.task, m.flags, m.owner, m.state, m.generation, m.attempt, m.losses, m.ready_ms, m.due_ms, m.cell, p.parents, m.rule, p.signal, x.most, p.follows, x.turn, x.marks, g.key, k.state
FROM message m JOIN plan p ON p.id = m.id LEFT JOIN expansion x ON x.id = m.id LEFT JOIN gate g ON g.id = m.gate LEFT JOIN parked k ON k.node = m.id WHERE m.id BETWEEN ? AND ? AND m.state = ? ORDER BY m.id LIMIT ?
-- name: status_queues
SELECT name, ready FROM queue ORDER BY name
-- name: status
SELECT (SELECT count(*) FROM message WHERE state = 1), (SELECT count(*) FROM message WHERE session IS NOT NULL), (SELECT count(*) FROM dead), (SELECT count(*) FROM run WHERE live = 1 AND ended_ms = 0)
-- name: left
WITH mine(id) AS (SELECT q.id FROM queue q JOIN json_each(?1) j ON j.value = q.name)
SELECT EXISTS(SELECT 1 FROM walk) OR EXISTS(SELECT 1 FROM queue WHERE ready > 0 AND id IN mine)
OR EXISTS(SELECT 1 FROM message WHERE session IS NOT NULL AND queue IN mine)
OR EXISTS(SELECT 1 FROM message WHERE state = 1 AND (queue IN mine OR queue = 0))
-- name: dead
SELECT d.uuid, d.reason, d.at_ms, d.body, d.losses FROM dead d LEFT JOIN run r ON r.id = d.run
WHERE CASE WHEN d.run IS NULL THEN d.forget_ms > ?2 ELSE r.live = 1 AND (r.forget_ms IS NULL OR r.forget_ms > ?2) END
AND d.id < COALESCE((SELECT id FROM dead WHERE uuid = ?1), 9223372036854775807) ORDER BY d.id DESC LIMIT ?3
-- name: dead_letter
SELECT d.uuid, d.reason, d.at_ms, d.body, d.losses FROM dead d LEFT JOIN run r ON r.id = d.run
WHERE d.uuid = ?1
AND CASE WHEN d.run IS NULL THEN d.forget_ms > ?2 ELSE r.live = 1 AND (r.forget_ms IS NULL OR r.forget_ms > ?2) END
-- name: any_walk
SELECT 1 FROM walk LIMIT 1
-- name: any_ready
SELECT 1 FROM queue WHERE ready > 0 AND id IN (SELECT value FROM json_each(?)) LIMIT 1
-- name: check
SELECT m.id, m.state, m.flags, m.owner, m.succeeded, m.failed, m.skipped, m.cancelled, m.ready_ms, p.parents, p.lenient, p.follows, m.rule
FROM message m JOIN plan p ON p.id = m.id WHERE m.run = ?1 AND m.id BETWEEN ?2 AND ?3 ORDER BY m.id
-- name: check_expansions
SELECT e.id, e.turn, p.later, e.won, e.marks, e.most, e.under, e.after, e.unfinished, e.failures, e.cancels, e.skips
FROM expansion e JOIN plan p ON p.id = e.id WHERE e.id BETWEEN ? AND ?
-- name: check_walks
SELECT count(*) FROM walk WHERE node BETWEEN ? AND ?

-- --- housekeeping

-- name: forgotten
SELECT id, losses FROM message WHERE forget_ms <= ? LIMIT ?
-- name: drop_message
DELETE FROM message WHERE id = ?
-- name: drop_plan
DELETE FROM plan WHERE id = ?
-- name: forgotten_runs
SELECT id, base, nodes, uuid FROM run WHERE forget_ms <= ? ORDER BY forget_ms LIMIT 1
-- name: drop_messages
DELETE FROM message WHERE id BETWEEN ? AND ?
-- name: drop_plans
DELETE FROM plan WHERE id BETWEEN ? AND ?
-- name: drop_expansions
DELETE FROM expansion WHERE id BETWEEN ? AND ?
-- name: drop_all_losses
DELETE FROM loss WHERE message BETWEEN ? AND ?
-- name: drop_walks
DELETE FROM walk WHERE node BETWEEN ? AND ? AND state <> ?
-- name: last_row
SELECT max(id) FROM message WHERE id BETWEEN ? AND ?
-- name: drop_run
DELETE FROM run WHERE id = ?
-- name: drop_dead_of
DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE run = ? LIMIT ?)
-- name: drop_dead
DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE forget_ms <= ? LIMIT ?)

-- --- what is remembered beside

-- name: recall
SELECT value FROM cache WHERE key = ? AND forget_ms > ?
-- name: remember
INSERT OR REPLACE INTO cache(key, forget_ms, value) VALUES (?, ?, ?)
-- name: drop_cache
DELETE FROM cache WHERE id IN (SELECT id FROM cache WHERE forget_ms <= ? LIMIT ?)
