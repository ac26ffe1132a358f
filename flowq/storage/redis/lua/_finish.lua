-- How ends spread, as storage/base.py tells it: in the children, page by page, and in the owner.
-- A cursor is {run, node, state, culprit, edges done, front}. EXPANDED starts the node's entries;
-- others than ends are told in _phases.lua.
local todo, head = {}, 1
local ZERO5 = '\0\0\0\0\0'
local front = true -- what this script starts goes before what was enqueued
-- Edges that this script may still walk; one whose node ends costs two, as it takes the time of three.
local page = PAGE
local AT_ONCE = 100
local ends = 0

local finish
-- What few scripts need, made when the first of it is: to make a function costs time in each call.
local phases, extras, alongs, limits, parks
local turn -- the number of this page of what is held

local function spread(r, i, state, culprit)
  todo[#todo + 1] = {r, i, state, culprit, 0, front}
end

-- Whether a node's failure counts in the expansion around it.
local function fails(bits, state)
  return not has(bits, 1) and (state == BLOCKED or state == FAILED and not has(bits, 8))
end

-- What a failure around it may stop holds nodes whose edges wait too (done_node).
local function guard(r, x, row)
  local o = node(r, (unpack_('>I4', row, 12)))
  if o and o.flags >= 128 and x.flags < 128 then x.flags = x.flags + 128 end
end

-- What settled a message last, for the cell of one that the store ends: so a repeated settlement still
-- finds itself. A last delivery that settled nothing has LOST for its kind, and is kept so that its
-- number is not used again.
local LOST = 255
local function settled_by(id)
  local delivery, _, _, how = record_of(id)
  if delivery == 0 then return ZERO5 end
  return pack('>I4B', delivery, how == 1 and 1 or LOST)
end

-- What is settled so: the delivery, and how it came back (as in d).
local function settlement(settled)
  local delivery, kind = unpack_('>I4B', settled)
  return delivery, kind == LOST and 0 or 1
end

local WAS = {[SKIPPED] = 'what its value names was skipped',
             [CANCELLED] = 'what its value names was cancelled'}

-- Ends an expansion; `given` is the group whose value it has, where that is not its own.
local function end_as(r, x, outcome, given)
  local kind, body, cell = outcome, WAS[outcome], nil
  if outcome == FAILED then
    kind, body = FAILED + CULPRIT, pack('>I4', x.n)
    if has(x.flags, 32) then cell = phases().failed_cell(r, x) end
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
  end
  finish(r, x, outcome, cell or cell_of(kind, body), settled, x.n)
  if x.lane == 255 and x.state >= SUCCESS then forget(r.id .. pack('>I4', x.i)) end
end

local function outcome_of(x, tolerate, stopped)
  if stopped then return CANCELLED end
  if x.b > tolerate then return FAILED end
  if x.d > 0 then return CANCELLED end
  return x.c > 0 and SKIPPED or SUCCESS
end

-- Nothing is unfinished of those whose turn it is in an expansion.
local function end_expansion(r, x)
  if x.mode == 0 and not has(x.flags, 32) then end_as(r, x, outcome_of(x, 0, false))
  else phases().end_turn(r, x) end
end

-- Counts an end in the expansion around it, if it is its turn.
local function count_owner(r, owner, i, phase, bits, state, culprit)
  local o = node(r, owner)
  if not o or o.state >= SUCCESS then return end
  if (phase > 0 or o.mode >= PASSED) and not phases().has_turn(r, o, i, phase) then return end
  if o.state == WAITING then return phases().end_early(r, o, bits, state, culprit) end
  dirty(r, o)
  if o.a > 0 then o.a = o.a - 1 end
  if state == SUCCESS then
    if o.flags >= 160 then extras().win(r, o) end
  else
    if state == SKIPPED then
      if has(bits, 2) then o.c = o.c + 1 end
    elseif state == CANCELLED then
      if not has(bits, 1) and (o.flags < 160 or extras().need_of(r, o) == 0) then o.d = o.d + 1 end
    elseif fails(bits, state) then
      o.b = o.b + 1
      if o.b == 1 then o.n = culprit end
    end
  end
  if o.a == 0 and o.state == EXPANDED then end_expansion(r, o) end
end

-- Ends a node that has not ended.
function finish(r, x, state, cell, settled, culprit)
  dirty(r, x)
  local waited = x.state == WAITING
  ends = ends + 1
  local row = x.i > 0 and row_of(r, x.i)
  local owner, bits, phase, o
  if row then
    owner, bits, phase = unpack_('>I4', row, 12), byte(row, 7), byte(row, 8)
    o = node(r, owner)
    if has(bits, 4) then return parks().keep(r, x, state, cell, settled, culprit) end
    if (has(bits, 16) or o and o.flags >= 160) and extras().is_unwanted(r, o, x.i, phase, bits) then
      state, culprit, cell = SKIPPED, NONE, extras().lost_cell(cell)
    end
  end
  if not row and has(byte(row_of(r, 0) or '', 7) or 0, 4) then
    return parks().keep(r, x, state, cell, settled, culprit)
  end
  if has(x.flags, 32) and not waited and x.flags % 8 < 2 then limits().leave(r, x) end
  if state == FAILED and has(x.flags, 32) and not has(x.flags, 2) and phases().falls_back(r, x, cell, settled) then
    return
  end
  x.state = state
  if waited and x.gen > 0 then settled = settled_by(r.id .. pack('>I4', x.i)) end
  r.cells[#r.cells + 1] = pack('>I4', x.i)
  r.cells[#r.cells + 1] = settled .. cell
  if waited and x.gen > 0 then forget(r.id .. pack('>I4', x.i)) end -- of generations before
  tell(r.id, x.i)
  if not row then
    local got = call('HMGET', r.n, 'r', 'P')
    local _, result, failed = unpack_('>I6I6I6', got[1])
    r.paused = got[2]
    r.ended = math.max(state == FAILED and failed or result, MEMORY)
    tell(r.id)
    return
  end
  if has(bits, 64) and fails(bits, state) then
    if o and o.state == EXPANDED and not has(o.mode, CLOSING) and phases().has_turn(r, o, x.i, phase) then
      phases().close(r, o)
    end
  end
  if unpack_('>I4', row, 20) > 0 then
    spread(r, x.i, state == FAILED and has(bits, 8) and PARDONED or state, culprit)
  end
  if has(x.flags, 32) then
    local more = phases().more_of(row)
    if more and more.edges > 0 then spread(r, x.i, LENIENT, NONE) end
    if more and more.led > 0 and (waited or not has(x.flags, 2)) then
      spread(r, x.i, TRAIL + (state == FAILED and has(bits, 8) and SUCCESS or state), culprit)
    end
    if more and not waited and more.signal ~= '' then extras().end_wait(r, x) end
    if not waited and not has(x.flags, 2) and more and #more.groups > 0 then
      spread(r, x.i, INSIDE + SKIPPED, NONE)
    end
  end
  if o and o.flags >= 160 then alongs().tell(r, o, x.i) end
  if waited and (has(x.flags, 2) or has(x.flags, 32)) then spread(r, x.i, INSIDE + state, culprit) end
  if not waited and phase == 0 and o and o.flags >= 160 then extras().free(r, o) end
  count_owner(r, owner, x.i, phase, bits, state, culprit)
end

-- Puts a message into its queue, or among what is due later; a node that is given too is held, where
-- there is no room for it.
local function let_run(id, queue, priority, timed, r, x)
  if timed then
    local delay, due, within, expires = unpack_('>I6I6I6I6', timed)
    if within > 0 and (expires == 0 or now + within < expires) then expires = now + within end
    if expires > 0 then call('ZADD', P .. 'e', expires, id) end
    due = math.max(now + delay, due)
    if due > now then
      call('ZADD', P .. 's', due, id)
      if front then call('HSETNX', P .. 'd', id, pack('>I4I4BBI6', 0, 0, 0, 2, 0)) end
      call('ZADD', P .. 'k:' .. queue, 0, 1)
      return
    end
  end
  if not x or limits().enter(r, x) then push(id, queue, priority, front) end
end

local function spread_entries(r, x)
  if x.flags < 160 then return spread(r, x.i, EXPANDED, NONE) end
  spread(r, x.i, extras().first_of(r, x), NONE)
end

local function start(r, x)
  if x.mode > 0 then return extras().block(r, x) end
  dirty(r, x)
  x.ready = now
  if has(x.flags, 2) then
    x.state = EXPANDED
    local row = row_of(r, x.i)
    guard(r, x, row)
    if has(byte(row, 5), 64) then extras().set_deadline(r, x) end
    if x.flags >= 160 then alongs().tell_followers(r, x) end
    x.a, x.b, x.c, x.d, x.n = (unpack_('>I4', row, 16)), 0, 0, 0, NONE
    if has(x.flags, 16) then
      local ended
      ended, x.b, x.c, x.d, x.n = unpack_('>I4I4I4I4I4', call('HGET', r.n, 'e' .. pack('>I4', x.i)))
      x.a = x.a - ended
    end
    if x.a == 0 then end_expansion(r, x)
    elseif has(x.flags, 16) then spread(r, x.i, JUDGE, NONE)
    else spread_entries(r, x) end
  elseif has(x.flags, 4) then
    if has(x.flags, 32) then return extras().start_join(r, x) end
    finish(r, x, SUCCESS, cell_of(SUCCESS + EMPTY, ''), ZERO5, NONE)
  else
    x.state = QUEUED
    local queue, priority = lane_of(r, x)
    local timed
    if has(x.flags, 8) then
      local row = row_of(r, x.i)
      local off = offset_of(row)
      timed = sub(row, off - 23, off)
    end
    if has(x.flags, 32) then let_run(r.id .. pack('>I4', x.i), queue, priority, timed, r, x)
    else let_run(r.id .. pack('>I4', x.i), queue, priority, timed) end
  end
end

-- states.verdict: QUEUED stands for "run", nil for "wait".
local function verdict(r, x)
  local n, s, f, k, c = x.n, x.a, x.b, x.c, x.d
  local a, b, all, d, e = n, 0, n, 0, 0
  if has(x.flags, 1) then
    local row = row_of(r, x.i)
    local last = offset_of(row)
    if has(byte(row, 5), 1) or has(byte(row, 5), 4) then last = last - 24 end
    a, b, all, d, e = unpack_('>I4I4I4I4I4', row, last - 19)
  end
  local left = n - (s + f + k + c)
  if f + c > d or k > e or s + left < a or f + left < b then
    if f > d then return BLOCKED end
    if left > 0 then return nil end
    if b > 0 then return c > 0 and CANCELLED or SKIPPED end
    if f > 0 then return BLOCKED end
    return c > 0 and CANCELLED or SKIPPED
  end
  if s >= a and f >= b and s + f + k + c >= all then return QUEUED end
  return nil
end

-- What is stored of a node that is blocked; the same for all that one failure blocks.
local blocked_by, blocked
local function blocked_cell(culprit)
  if blocked_by ~= culprit then
    blocked_by, blocked = culprit, cell_of(BLOCKED + CULPRIT, pack('>I4', culprit))
  end
  return blocked
end

local LABEL = {[SKIPPED] = 'what it waits for was skipped', [CANCELLED] = 'what it waits for was cancelled'}

-- Starts or ends a node that waits, if its rule says so.
local function judge(r, x)
  local becomes = verdict(r, x)
  if becomes == QUEUED then
    start(r, x)
  elseif becomes then
    local blame = x.ready == 0 and NONE or x.ready - 1
    x.ready = 0
    if becomes == BLOCKED then
      finish(r, x, BLOCKED, blocked_cell(blame), ZERO5, blame)
    else
      finish(r, x, becomes, cell_of(becomes, LABEL[becomes]), ZERO5, NONE)
    end
  end
end

-- A parent of a node ended; where it is `quiet`, no rule is looked at.
local function count(r, x, state, culprit, quiet)
  if x.state ~= WAITING then return end
  dirty(r, x)
  if state == SUCCESS then
    x.a = x.a + 1
    if x.flags % 2 == 0 and not quiet then -- the common rule
      if x.a == x.n then return start(r, x) end
      if x.b + x.c + x.d == 0 then return end
    end
  elseif state == SKIPPED then x.c = x.c + 1
  elseif state == CANCELLED then x.d = x.d + 1
  else
    x.b = x.b + 1
    if x.ready == 0 then x.ready = culprit + 1 end
  end
  if not quiet then judge(r, x) end
end

-- Whether no rule of a node is looked at: the expansion around it has not begun, has ended, or is
-- closing; or its turn comes, or does not.
local function is_quiet(r, o, x)
  if not o or o.state ~= EXPANDED then return true end
  if o.mode == 0 and not has(x.flags, 64) then return false end
  return phases().is_quiet(r, o, x)
end

-- Walks what ended, as far as this script's page goes; the rest stays in the list.
local function walk()
  local edges = page
  turn = nil
  while head <= #todo and edges > 0 do
    local cursor = todo[head]
    local r, i, state, culprit, done, first_come = unpack(cursor)
    front = first_come
    local row = row_of(r, i)
    if state == RESUME then
      local looked, all = extras().release(r, edges)
      edges = edges - looked
      if all then head = head + 1 end
    elseif state == UNPARK then
      local before, looked, all = ends, parks().take_back(r, edges)
      edges = edges - looked - (ends - before)
      if all then head = head + 1 end
    elseif not row or not is_whole(20, row) then head = head + 1
    elseif state == LET_IN then
      local looked, all = limits().let_in(r, node(r, i), edges)
      edges = edges - looked - (all and 1 or 0)
      if all then head = head + 1 end
    elseif state == ALONGSIDE then
      local x, before = node(r, i), ends
      local o = x and node(r, (unpack_('>I4', row, 12)))
      if x and x.state == WAITING and not is_quiet(r, o, x) then extras().weigh(r, o, x) end
      edges = edges - 1 - (ends - before)
      head = head + 1
    elseif state == FILL then
      local before, looked, all = ends, extras().fill(r, node(r, i), row, edges)
      edges = edges - looked - (ends - before)
      if all then head = head + 1 end
    else
      local at, ranges, o = 42, (unpack_('>I4', row, 20)), nil
      local visit = state >= LENIENT and phases().visit
      if visit then
        at, ranges, o = phases().reach(r, i, row, state, culprit)
      elseif state == EXPANDED then
        local c, rd, e = unpack_('>I4I4I4', row, 20)
        at, ranges, o = 42 + 8 * (c + rd), e, node(r, i)
      else
        o = node(r, (unpack_('>I4', row, 12)))
      end
      local skip, whole = done, true
      for k = 0, ranges - 1 do
        local first, n = unpack_('>I4I4', row, at + 8 * k)
        if skip >= n then
          skip = skip - n
        else
          local take = math.min(n - skip, edges, AT_ONCE)
          local before = ends
          first = first + skip
          if take > 1 then read_nodes(r, first, take) end
          if visit then
            visit(r, i, o, state, culprit, first, first + take - 1)
          else
            for j = first, first + take - 1 do
              local x = node(r, j)
              if x and x.state == WAITING then
                if state ~= EXPANDED then count(r, x, state, culprit, is_quiet(r, o, x))
                elseif not is_quiet(r, o, x) then start(r, x) end
              end
            end
          end
          edges = edges - take - (ends - before)
          cursor[5] = cursor[5] + take
          if skip + take < n or (edges <= 0 and k < ranges - 1) then whole = false break end
          skip = 0
        end
      end
      if whole then head = head + 1 end
    end
  end
  page, turn = edges, nil
  front = true
end

-- Takes up what earlier steps left; gives how many cursors.
local function resume()
  local found = call('LPOP', P .. 'todo', math.max(page, 1))
  if not found then return 0 end
  for _, raw in ipairs(found) do
    local i, state, culprit, done = unpack_('>I4BI4I4', raw, 17)
    local back = state > 127 -- the start of a run, which was not queued by a settlement
    if back then state = state - 128 end
    todo[#todo + 1] = {run_of(sub(raw, 1, 16)), i, state, culprit, done, not back}
  end
  return #found
end

-- Writes all that was gathered, what is forgotten last. Nothing here can fail.
local function flush()
  flush_runs()
  flush_lines()
  if #leaving + #stopping > 0 then phases().flush_left() end
  flush_ended()
  flush_forgotten()
end

-- Stores what is left to walk, and writes all; gives how many cursors that are, or with `total` how many
-- are left of all.
local function leave(total)
  local left = {}
  for k = head, #todo do
    local c = todo[k]
    left[#left + 1] = c[1].id .. pack('>I4BI4I4', c[2], c[6] and c[3] or c[3] + 128, c[4], c[5])
  end
  todo, head = {}, 1
  if #left > 0 then many('RPUSH', P .. 'todo', left) end
  flush()
  return total and call('LLEN', P .. 'todo') or #left
end
