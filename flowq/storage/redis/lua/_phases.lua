-- Expansions: what ends in them, what runs after their body, and how they are stopped; in the words
-- of storage/base.py. `mode` of a record: its phase (2 bits), then the bits below, then OUTCOME times
-- the fixed outcome (its state - 5), then PASSED times how many later groups are behind it or run.
local CLOSING, STOPPED, NO_HANDLERS, NO_FINALLY, NO_FALLBACK = 4, 8, 16, 32, 64
local OUTCOME, PASSED = 128, 1024
local FORBIDDEN = {NO_HANDLERS, NO_FINALLY, NO_FALLBACK}
local WHEN = {[SUCCESS] = 1, [FAILED] = 2}
-- Whose turn it is tells the last: 0 its body's, k the k-th group's.
-- A cursor is {run, node, state, culprit, edges done, front}. Besides that of a node that ended, its
-- state may be: EXPANDED starts the node's entries; JUDGE looks at all in its body, where something
-- ended before it began, GROUP at one of its later groups (by number, in the place of a culprit);
-- UNCALLED ends such a group that is not called for; INSIDE + state ends all in its body as it ended,
-- which never began; STOP stops those whose turn it was (as a number too); LENIENT counts a success
-- along its lenient edges, PARDONED a failure as success, but for what is of a later phase.
local LENIENT, UNCALLED, PARDONED, GROUP, JUDGE, INSIDE, STOP = 11, 12, 13, 14, 15, 16, 28
local todo, head = {}, 1
local ZERO5 = '\0\0\0\0\0'
local front = true -- what this script starts goes before what was enqueued

local finish

local function spread(r, i, state, culprit)
  todo[#todo + 1] = {r, i, state, culprit, 0, front}
end

local function set(x, bit)
  if not has(x.mode, bit) then x.mode = x.mode + bit end
end

local function phase_of(r, x)
  local row = has(x.flags, 64) and row_of(r, x.i)
  return row and byte(row, 8) or 0
end

-- The later groups of a node.
local function groups_of(r, x)
  if not x.groups then
    local more = has(x.flags, 32) and more_of(row_of(r, x.i))
    x.groups = more and more.groups or {}
  end
  return x.groups
end

-- What a failure around it may stop holds nodes whose edges wait too (done_node).
local function guard(r, x, row)
  local o = node(r, (unpack_('>I4', row, 12)))
  if o and o.flags >= 128 and x.flags < 128 then x.flags = x.flags + 128 end
end

-- Whether a node's failure counts in the expansion around it.
local function fails(bits, state)
  return not has(bits, 1) and (state == BLOCKED or state == FAILED and not has(bits, 8))
end

-- What settled a message last, for the cell of one that the store ends: so a repeated settlement still
-- finds itself.
local function settled_by(id)
  local delivery, _, _, how = record_of(id)
  if how == 1 then return pack('>I4B', delivery, 1) end
  return ZERO5
end

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
local function close(r, x)
  set(x, CLOSING)
  dirty(r, x)
  spread(r, x.i, STOP, math.floor(x.mode / PASSED))
end

-- Cancels an expansion that has begun.
local function cancel_inwards(r, x, force)
  dirty(r, x)
  local phase = x.mode % 4
  set(x, NO_FALLBACK)
  if force then set(x, NO_FINALLY) end
  if phase == 0 then
    set(x, STOPPED)
    close(r, x)
  elseif phase ~= 2 or force then
    set(x, NO_HANDLERS)
    close(r, x)
  end
end

local WAS = {[SKIPPED] = 'what its value names was skipped',
             [CANCELLED] = 'what its value names was cancelled'}

-- Ends an expansion; `given` is the group whose value it has, where that is not its own.
local function end_as(r, x, outcome, given)
  local kind, body = outcome, WAS[outcome]
  if outcome == FAILED then
    kind, body = FAILED + CULPRIT, pack('>I4', x.n)
  elseif outcome == SUCCESS then
    kind = SUCCESS + TEMPLATE
    local row = row_of(r, x.i)
    if given then
      body = sub(row, given.value, given.value + given.size - 1)
    else
      local c, rd, e, p, v = unpack_('>I4I4I4I4I4', row, 20)
      local at = 42 + 8 * (c + rd + e + p)
      body = sub(row, at, at + v - 1)
    end
  elseif outcome == CANCELLED and has(x.mode, STOPPED) then
    body = 'cancelled'
  end
  local settled = ZERO5
  if x.lane == 255 then -- it was a task
    local id = r.id .. pack('>I4', x.i)
    settled = settled_by(id)
    forget(id)
  end
  finish(r, x, outcome, cell_of(kind, body), settled, x.n)
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

local function outcome_of(x, tolerate, stopped)
  if stopped then return CANCELLED end
  if x.b > tolerate then return FAILED end
  if x.d > 0 then return CANCELLED end
  return x.c > 0 and SKIPPED or SUCCESS
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

-- Nothing is unfinished in an expansion's phase.
local function end_expansion(r, x)
  if x.mode == 0 and not has(x.flags, 32) then return end_as(r, x, outcome_of(x, 0, false)) end
  local more = has(x.flags, 32) and more_of(row_of(r, x.i))
  local phase, given = x.mode % 4, nil
  local outcome = math.floor(x.mode / OUTCOME) % 8 + 5
  if phase == 0 then
    outcome = outcome_of(x, more and more.tolerate or 0, has(x.mode, STOPPED))
    if outcome == FAILED and more and #more.groups > 0 then -- so that those can read it
      local id = r.id .. pack('>I4', x.i)
      r.cells[#r.cells + 1] = sub(id, 17)
      r.cells[#r.cells + 1] = (x.lane == 255 and settled_by(id) or ZERO5)
        .. cell_of(FAILED + CULPRIT, pack('>I4', x.n))
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
  local delivery, attempt, losses, _, since = record_of(id)
  if settled ~= ZERO5 then delivery = unpack_('>I4', settled) end
  remember(id, delivery, attempt, losses, settled ~= ZERO5 and 1 or 0, since)
  untime(id)
  r.cells[#r.cells + 1] = i4
  r.cells[#r.cells + 1] = settled .. cell
  x.state, x.flags, x.lane, x.n = EXPANDED, x.flags + 2, 255, x.i
  guard(r, x, row)
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
    if not has(bits, 1) then d = d + 1 end
  elseif state == SKIPPED and has(bits, 2) then
    c = c + 1
  end
  call('HSET', r.n, field, pack('>I4I4I4I4I4', ended + 1, b, c, d, blame))
  if not has(o.flags, 16) then
    o.flags = o.flags + 16
    dirty(r, o)
  end
end

-- Counts an end in the expansion around it, if it is its turn.
local function count_owner(r, owner, i, phase, bits, state, culprit)
  local o = node(r, owner)
  if not o or o.state >= SUCCESS then return end
  if (phase > 0 or o.mode >= PASSED) and not has_turn(r, o, i, phase) then return end
  if o.state == WAITING then return end_early(r, o, bits, state, culprit) end
  dirty(r, o)
  if o.a > 0 then o.a = o.a - 1 end
  if state ~= SUCCESS then
    if state == SKIPPED then
      if has(bits, 2) then o.c = o.c + 1 end
    elseif state == CANCELLED then
      if not has(bits, 1) then o.d = o.d + 1 end
    elseif fails(bits, state) then
      o.b = o.b + 1
      if o.b == 1 then o.n = culprit end
    end
  end
  if o.a == 0 and o.state == EXPANDED then end_expansion(r, o) end
end
