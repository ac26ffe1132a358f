-- Expansions: what runs after their body, how they are stopped, and whatever few nodes have, in the
-- words of storage/base.py. `mode` of a record: its phase (2 bits), then the bits below, then OUTCOME
-- times the fixed outcome (its state - 5), then PASSED times how many later groups are behind it or
-- run.
local CLOSING, STOPPED, NO_HANDLERS, NO_FINALLY, NO_FALLBACK = 4, 8, 16, 32, 64
local OUTCOME, PASSED = 128, 1024
-- Whose turn it is tells the last: 0 its body's, k the k-th group's.
-- A cursor is {run, node, state, culprit, edges done, front}. Besides that of a node that ended, its
-- state may be: EXPANDED starts the node's entries; JUDGE looks at all in its body, where something
-- ended before it began, GROUP at one of its later groups (by number, in the place of a culprit);
-- UNCALLED ends such a group that is not called for; INSIDE + state ends all in its body as it ended,
-- which never began; STOP stops those whose turn it was (as a number too); LENIENT counts a success
-- along its lenient edges, PARDONED a failure as success, but for what is of a later phase and for
-- races; LOSE lets all that a race owns lose; FILL lets entries of a bounded expansion begin while
-- there are places; OVERDUE stops the body of what has passed its deadline; RESUME, of a root, queues
-- what is held; ENTRIES weighs the entries of what goes along with others; ALONGSIDE weighs the node;
-- TRAIL + state counts that in what follows it, TRAIL + EXPANDED that it has begun; LET_IN tries those
-- again that wait where the node had a place; UNPARK, of a root, lets all end that is parked.
local LENIENT, UNCALLED, PARDONED, GROUP, JUDGE, INSIDE, STOP = 11, 12, 13, 14, 15, 16, 28
local LOSE, FILL, OVERDUE, RESUME = 29, 30, 31, 32
local ENTRIES, ALONGSIDE, TRAIL, LET_IN, UNPARK = 33, 34, 35, 46, 47
local rare

function phases()
  if rare then return rare end

  local FORBIDDEN = {NO_HANDLERS, NO_FINALLY, NO_FALLBACK}
  local WHEN = {[SUCCESS] = 1, [FAILED] = 2}

  -- Where what stands before the rule and the times of a node's row ends.
  local function tail_of(row)
    local last, special = offset_of(row), byte(row, 5)
    if has(special, 16) then last = last - 20 end
    if has(special, 1) or has(special, 4) then last = last - 24 end
    return last
  end

  -- Where the ranges of all that stands inside a node begin, and how many there are.
  local function body_of(row)
    local c, r, e, p, v, n, q = unpack_('>I4I4I4I4I4BB', row, 20)
    local at, last = 42 + 8 * (c + r + e + p) + v + n + q, tail_of(row)
    if has(byte(row, 5), 32) then last = last - 4 - unpack_('>I4', row, last - 3) end
    return at, math.floor((last - at + 1) / 8)
  end

  -- What few nodes have: where the lenient edges and what it owns begin and how many they are, how many
  -- failures are tolerated and so on, and the groups that run later (from `at`), each with places in
  -- the row.
  local function more_of(row)
    if not has(byte(row, 5), 32) then return nil end
    local last = tail_of(row)
    local at = last - 3 - unpack_('>I4', row, last - 3)
    local edges, tolerate, count, need, most, time, owned, n, m, led, follows, along, limited =
      unpack_('>I4I4HI4I4I6I4HI4I4I4HI4', row, at)
    local owns = at + 48 + 8 * edges
    local followers = owns + 8 * owned
    local followed = followers + 8 * led
    local ties = followed + 8 * follows
    local its = ties + 16 * along
    local signal = its + limited
    local more = {lenient = at + 48, limits = its, limited = limited, edges = edges, led = led, followers = followers, follows = follows,
                  followed = followed, along = along, ties = ties, tolerate = tolerate, groups = {}, need = need,
                  most = most, time = time, owns = owns, owned = owned, at = signal + n + m,
                  signal = sub(row, signal, signal + n - 1),
                  blocked = sub(row, signal + n, signal + n + m - 1)}
    at = more.at
    for k = 1, count do
      local phase, when, inner, first, nodes, size = unpack_('>BBI4I4I4I4', row, at)
      local entries = at + 18
      local body = entries + 8 * first
      local value = body + 8 * nodes
      more.groups[k] = {row = row, phase = phase, when = when, inner = inner, entries = entries,
                        first = first, body = body, nodes = nodes, value = value, size = size}
      at = value + size
    end
    return more
  end

  local function set(x, bit)
    if not has(x.mode, bit) then x.mode = x.mode + bit end
  end

  local function phase_of(r, x)
    local row = has(x.flags, 64) and row_of(r, x.i)
    return row and byte(row, 8) or 0
  end

  -- What few nodes have, read once.
  local NOTHING = {groups = {}, edges = 0, tolerate = 0, need = 0, most = 0, time = 0, owned = 0,
                   led = 0, follows = 0, along = 0, signal = ''}
  local function more_at(r, x)
    if not x.more then x.more = has(x.flags, 32) and more_of(row_of(r, x.i)) or NOTHING end
    return x.more
  end

  -- The later groups of a node.
  local function groups_of(r, x) return more_at(r, x).groups end

  local function is_in(group, i)
    for k = 0, group.nodes - 1 do
      local first, count = unpack_('>I4I4', group.row, group.body + 8 * k)
      if i >= first and i < first + count then return true end
    end
    return false
  end

  -- Whether it is the turn of a node in an expansion.
  local function has_turn(r, o, i, phase)
    local turn = math.floor(o.mode / PASSED)
    if phase == 0 or turn == 0 then return phase + turn == 0 end
    local group = groups_of(r, o)[turn]
    return group and is_in(group, i)
  end

  -- Whether it is an alarm, which may start before its turn.
  local function may_alarm(r, o, i)
    if has(o.mode, NO_HANDLERS) then return false end
    local groups = groups_of(r, o)
    for k = math.floor(o.mode / PASSED) + 1, #groups do
      if groups[k].phase == 1 and groups[k].when == 0 and is_in(groups[k], i) then return true end
    end
    return false
  end

  -- Lets nothing start any more of those whose turn it is, and stops what is unfinished.
  local function close(r, x, overdue)
    set(x, CLOSING)
    dirty(r, x)
    spread(r, x.i, overdue and OVERDUE or STOP, math.floor(x.mode / PASSED))
  end

  -- Cancels an expansion that has begun; or stops it with one around it that is overdue.
  local function cancel_inwards(r, x, force, overdue)
    dirty(r, x)
    local phase = x.mode % 4
    set(x, NO_FALLBACK)
    if force then set(x, NO_FINALLY) end
    if phase == 0 then
      set(x, STOPPED)
      close(r, x, overdue)
    elseif phase ~= 2 or force then
      set(x, NO_HANDLERS)
      close(r, x)
    end
  end

  -- What is_quiet does not see at once.
  local function is_quiet_here(r, o, x)
    if has_turn(r, o, x.i, phase_of(r, x)) then return has(o.mode, CLOSING) end
    return not may_alarm(r, o, x.i)
  end

  -- What the nodes of a group add to the counts: unfinished, failures, skips, cancels; and whether one
  -- of them has begun. Some end before their turn: alarms, and what was cancelled by itself. How others
  -- than those of a fallback ended matters to nobody.
  local function counts_of(r, group)
    local a, b, c, d, begun = 0, 0, 0, 0, false
    for k = 0, group.nodes - 1 do
      local first, count = unpack_('>I4I4', group.row, group.body + 8 * k)
      for from = first, first + count - 1, MANY do
        local last = math.min(from + MANY, first + count) - 1
        local raw = call('GETRANGE', r.c, from * 32, last * 32 + 31)
        for j = from, last do
          local x = r.nodes[j]
          local state = x and x.state or byte(raw, (j - from) * 32 + 1) or SUCCESS
          if state < SUCCESS then
            a = a + 1
            begun = begun or state > WAITING
          elseif state > SUCCESS and group.phase == 3 then
            local row = row_of(r, j)
            local bits = row and byte(row, 7) or 0
            if fails(bits, state) then b = b + 1
            elseif state == SKIPPED then c = c + (has(bits, 2) and 1 or 0)
            elseif state == CANCELLED then d = d + (has(bits, 1) and 0 or 1) end
          end
        end
      end
    end
    return begun, a, b, c, d
  end

  -- The outcome is fixed: lets the next of the later groups begin whose turn it is, or ends the expansion.
  local function pass_on(r, x, outcome, given)
    dirty(r, x)
    local groups, passed = groups_of(r, x), math.floor(x.mode / PASSED)
    local phase, rest = x.mode % 4, x.mode % OUTCOME
    rest = rest - rest % 8 -- neither its phase nor CLOSING
    local function keep_mode() x.mode = rest + phase + OUTCOME * (outcome - 5) + PASSED * passed end
    while passed < #groups do
      passed = passed + 1
      local group = groups[passed]
      local called = (group.when == 0 or group.when == (WHEN[outcome] or 0)) and not has(rest, FORBIDDEN[group.phase])
      local begun, a, b, c, d = counts_of(r, group)
      if not called and not begun then
        spread(r, x.i, UNCALLED, passed)
      else
        phase = group.phase
        x.a, x.b, x.c, x.d = a, b, c, d
        keep_mode()
        -- else an alarm runs that is not wanted any more
        if called then spread(r, x.i, GROUP, passed) else close(r, x) end
        if a > 0 then return end
        if phase == 3 then outcome, given = outcome_of(x, 0, false), group end
      end
    end
    keep_mode()
    end_as(r, x, outcome, given)
  end

  -- The cell of an expansion that failed: it names whom to blame, or says that it is overdue.
  local function failed_cell(r, x)
    if x.n == x.i and more_at(r, x).time > 0 and extras().has_flag(r, 't', x.i) then
      return cell_of(FAILED, extras().overdue_text(r, x.i))
    end
    return cell_of(FAILED + CULPRIT, pack('>I4', x.n))
  end

  -- Nothing is unfinished of those whose turn it is.
  local function end_turn(r, x)
    local more = has(x.flags, 32) and more_of(row_of(r, x.i))
    local phase, given = x.mode % 4, nil
    local outcome = math.floor(x.mode / OUTCOME) % 8 + 5
    if phase == 0 then
      if more and more.along > 0 and more.most > 0 then alongs().end_able(r, x) end
      outcome = outcome_of(x, more and more.tolerate or 0, has(x.mode, STOPPED))
      if more and more.need + more.time > 0 then outcome = extras().outcome(r, x, more) end
      if outcome == FAILED and more and #more.groups > 0 then -- so that those can read it
        local id = r.id .. pack('>I4', x.i)
        r.cells[#r.cells + 1] = sub(id, 17)
        r.cells[#r.cells + 1] = (x.lane == 255 and settled_by(id) or ZERO5) .. failed_cell(r, x)
      end
    elseif phase == 3 and not has(x.mode, NO_FALLBACK) then
      outcome = outcome_of(x, 0, false)
      given = more.groups[math.floor(x.mode / PASSED)]
    end
    pass_on(r, x, outcome, given)
  end

  -- A task failed for good: lets what is to follow that begin, if there is something. Who reads the task
  -- gets the failure.
  local function falls_back(r, x, cell, settled)
    if #groups_of(r, x) == 0 then return false end
    local row = row_of(r, x.i)
    local o = node(r, (unpack_('>I4', row, 12)))
    if o and has(o.mode, CLOSING) and has_turn(r, o, x.i, byte(row, 8)) then return false end
    local i4 = pack('>I4', x.i)
    local id = r.id .. i4
    local delivery, attempt, losses, how, since = record_of(id)
    if settled ~= ZERO5 then delivery, how = settlement(settled) end
    remember(id, delivery, attempt, losses, how, since)
    timeless[#timeless + 1] = id
    r.cells[#r.cells + 1] = i4
    r.cells[#r.cells + 1] = settled .. cell
    x.state, x.flags, x.lane, x.n = EXPANDED, x.flags + 2, 255, x.i
    guard(r, x, row)
    alongs().tell_followers(r, x)
    pass_on(r, x, FAILED)
    return true
  end

  -- An inner node ended (was cancelled) before its expansion began, whose record still counts parents:
  -- ended, failures, skips, cancels and culprit lie beside its row until it begins.
  local function end_early(r, o, bits, state, culprit)
    local field = 'e' .. pack('>I4', o.i)
    local raw = call('HGET', r.n, field)
    local ended, b, c, d, blame = 0, 0, 0, 0, NONE
    if raw then ended, b, c, d, blame = unpack_('>I4I4I4I4I4', raw) end
    if fails(bits, state) then
      b = b + 1
      if b == 1 then blame = culprit end
    elseif state == CANCELLED then
      if not has(bits, 1) and more_at(r, o).need == 0 then d = d + 1 end
    elseif state == SKIPPED and has(bits, 2) then
      c = c + 1
    end
    call('HSET', r.n, field, pack('>I4I4I4I4I4', ended + 1, b, c, d, blame))
    if not has(o.flags, 16) then
      o.flags = o.flags + 16
      dirty(r, o)
    end
  end

  local INSIDE_LABEL = {[SKIPPED] = 'what it stands in was skipped', [CANCELLED] = 'what it stands in was cancelled'}
  -- Ends a node that waits with what is around it, or because that does not call for it. Nothing is
  -- counted in that, and no rule is looked at, so nothing along the edges between such nodes.
  local function end_inside(r, x, state, culprit, why)
    dirty(r, x)
    ends = ends + 1
    x.state, x.ready = state, 0
    local settled = ZERO5
    if x.gen > 0 then
      settled = settled_by(r.id .. pack('>I4', x.i))
      forget(r.id .. pack('>I4', x.i))
    end
    r.cells[#r.cells + 1] = pack('>I4', x.i)
    r.cells[#r.cells + 1] = settled .. (state == BLOCKED and blocked_cell(culprit)
      or cell_of(state, why or INSIDE_LABEL[state]))
    tell(r.id, x.i)
    if has(x.flags, 2) or has(x.flags, 32) then spread(r, x.i, INSIDE + state, culprit) end
  end

  -- Which session holds an id: a read of each session, so that nothing need be written when a message
  -- is handed out but its lease. Gives id -> {session, lease}.
  local function holders(ids)
    local found = {}
    if #ids == 0 then return found end
    for _, session in ipairs(call('ZRANGE', P .. 'L', 0, -1)) do
      for first = 1, #ids, MANY do
        local leases = call('HMGET', P .. 'w:' .. session, unpack(ids, first, math.min(first + MANY - 1, #ids)))
        for k = 1, #leases do
          if leases[k] then found[ids[first + k - 1]] = {session, leases[k]} end
        end
      end
    end
    return found
  end

  local function mark(id, lease)
    local session, value = lease[1], lease[2]
    local flags = byte(value, 5)
    if has(flags, 16) then return end
    stopping[#stopping + 1] = {session, id, sub(value, 1, 4) .. string.char(flags + 16) .. sub(value, 6)}
  end

  -- Behind what is queued: that may be among what leaves again.
  local function flush_left()
    for _, one in ipairs(leaving) do ghost(unpack(one)) end
    for _, one in ipairs(stopping) do
      call('HSET', P .. 'w:' .. one[1], one[2], one[3])
      call('SADD', P .. 'z:' .. one[1], one[2])
      call('ZADD', P .. 'y:' .. one[1], 0, 1)
    end
    if #leaving > 0 then leaving = {} end
    if #stopping > 0 then stopping = {} end
  end

  -- The node if anybody may see it: its run is there, uploaded whole, and it is none of a fragment that
  -- is still on its way.
  local function node_seen(r, i)
    local x = node(r, i)
    if not x or is_past(r.id, node(r, 0).state) then return nil end
    local got = call('HMGET', r.n, 'u', 'X')
    if got[1] or call('HEXISTS', r.n, pack('>I4', i)) == 0 then return nil end
    local hidden = got[2] or ''
    for at = 1, #hidden, 8 do
      local first, n = unpack_('>I4I4', hidden, at)
      if i >= first and i < first + n then return nil end
    end
    return x
  end

  -- The nodes that were done in this script, and whose record says so only at its end.
  local function done_here(r)
    local done = {}
    for _, i in ipairs(r.done) do done[i] = true end
    return done
  end

  local function is_race(r, x)
    return has(x.flags, 4) and has(x.flags, 32) and has(byte(row_of(r, x.i), 7), 32)
  end

  -- Stops neighbours whose turn it was; those that `lose`, or that run in what is `overdue`, are told from
  -- others.
  local function stop_all(r, first, count, turn, lose, overdue)
    local ids, done = {}, done_here(r)
    for j = first, first + count - 1 do
      local x = not done[j] and node(r, j)
      if x and (turn > 0 or not has(x.flags, 64)) then
        if parks().is(r, j) then parks().unpark(r, x) end
        if lose and x.state < SUCCESS then extras().flag(r, 'l', j, x.state == EXPANDED) end
        if x.state == QUEUED or x.state == HELD then
          ids[#ids + 1] = r.id .. pack('>I4', j)
        elseif x.state == EXPANDED then
          cancel_inwards(r, x, false, overdue)
        elseif x.state == WAITING then
          x.ready = 0
          finish(r, x, CANCELLED, cell_of(CANCELLED, INSIDE_LABEL[CANCELLED]), ZERO5, NONE)
        end
      end
    end
    local held = holders(ids)
    for _, id in ipairs(ids) do
      local j = unpack_('>I4', id, 17)
      if held[id] then
        if lose then extras().flag(r, 'l', j, true) end
        if overdue and not has(byte(held[id][2], 5), 16) then extras().flag(r, 't', j, true) end
        mark(id, held[id])
      else
        local x = node(r, j)
        local settled = settled_by(id)
        if x.state == QUEUED and not call('ZSCORE', P .. 's', id) then leave_list(id, lane_of(r, x)) end
        finish(r, x, CANCELLED, cell_of(CANCELLED, INSIDE_LABEL[CANCELLED]), settled, NONE)
        forget(id)
      end
    end
  end

  -- Where a cursor's ranges begin in its node's row, how many there are, and in which expansion they lie.
  local function reach(r, i, row, state, culprit)
    local o = node(r, (state == GROUP or state == JUDGE) and i or (unpack_('>I4', row, 12)))
    if state == PARDONED then return 42, (unpack_('>I4', row, 20)), o end
    local at, ranges = 42, 0
    local more = more_of(row)
    if state == LOSE then return more.owns, more.owned end
    if state == ENTRIES then
      local c, rd, e = unpack_('>I4I4I4', row, 20)
      return 42 + 8 * (c + rd), e, node(r, i)
    elseif state > TRAIL then
      return more.followers, more.led, o
    end
    local group = more and more.groups[culprit]
    if state == GROUP or state == UNCALLED or state == STOP and culprit > 0 then
      if group then at, ranges = group.body, group.nodes end
    elseif state >= JUDGE then
      at, ranges = body_of(row)
    elseif more then
      at, ranges = more.lenient, more.edges
    end
    return at, ranges, o
  end

  -- Does what a cursor says with neighbours; `o` is the expansion that they stand in.
  local function visit(r, i, o, state, culprit, first, last)
    if state == STOP then return stop_all(r, first, last - first + 1, culprit) end
    if state == OVERDUE then return stop_all(r, first, last - first + 1, 0, false, true) end
    if state == LOSE then return stop_all(r, first, last - first + 1, 1, true) end
    local phase = state == PARDONED and byte(row_of(r, i), 8)
    for j = first, last do
      local x = node(r, j)
      if x and x.state == WAITING then
        if state > TRAIL then
          local ended = state - TRAIL
          count(r, x, ended == EXPANDED and SUCCESS or ended, culprit, is_quiet(r, o, x))
        elseif state > INSIDE and state < STOP then
          end_inside(r, x, state - INSIDE, culprit)
        elseif state == UNCALLED then
          end_inside(r, x, SKIPPED, NONE, 'not called for')
        elseif state == LENIENT then
          count(r, x, SUCCESS, NONE, is_quiet(r, o, x))
        elseif state == PARDONED then
          local fails_here = phase_of(r, x) > phase or is_race(r, x)
          count(r, x, fails_here and FAILED or SUCCESS, culprit, is_quiet(r, o, x))
        elseif not is_quiet(r, o, x) then
          if o.flags >= 160 then extras().weigh(r, o, x) else judge(r, x) end
        end
      end
    end
  end

  -- Whether a node stands in what is closing, however deep.
  local function is_stopped(r, i)
    local row = row_of(r, i)
    while row do
      local o = node(r, (unpack_('>I4', row, 12)))
      if not o then return false end
      if has(o.mode, CLOSING) and has_turn(r, o, i, byte(row, 8)) then return true end
      i = o.i
      row = row_of(r, i)
    end
    return false
  end

  -- Ends one that was popped from its list, if it stands in what is closing.
  local function end_stopped(id)
    if #id == 16 then return false end
    local r, i = run_of(sub(id, 1, 16)), (unpack_('>I4', id, 17))
    local x = node(r, i)
    if not x or x.state ~= QUEUED or not is_stopped(r, i) then return false end
    finish(r, x, CANCELLED, cell_of(CANCELLED, INSIDE_LABEL[CANCELLED]), settled_by(id), NONE)
    forget(id)
    return true
  end

  rare = {
    body_of = body_of, close = close, cancel_inwards = cancel_inwards, done_here = done_here,
    end_early = end_early, end_stopped = end_stopped, end_turn = end_turn, failed_cell = failed_cell,
    falls_back = falls_back, flush_left = flush_left, has_turn = has_turn, holders = holders,
    is_quiet = is_quiet_here, is_race = is_race, mark = mark, more_at = more_at, more_of = more_of,
    node_seen = node_seen, reach = reach, tail_of = tail_of, visit = visit,
  }
  return rare
end
