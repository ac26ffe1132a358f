-- How ends spread, as storage/base.py tells it: in the children, page by page, and in the owner.
-- Edges that this script may still walk; one whose node ends costs two, as it takes the time of three.
local page = PAGE
local AT_ONCE = 100
local ends = 0

-- Ends a node that has not ended.
function finish(r, x, state, cell, settled, culprit)
  dirty(r, x)
  local waited = x.state == WAITING
  ends = ends + 1
  if state == FAILED and has(x.flags, 32) and not has(x.flags, 2) and falls_back(r, x, cell, settled) then
    return
  end
  x.state = state
  r.cells[#r.cells + 1] = pack('>I4', x.i)
  r.cells[#r.cells + 1] = settled .. cell
  tell(r.id, x.i)
  if x.i == 0 then
    local _, result, failed = unpack_('>I6I6I6', call('HGET', r.n, 'r'))
    r.ended = math.max(state == FAILED and failed or result, MEMORY)
    tell(r.id)
    return
  end
  local row = row_of(r, x.i)
  local owner, bits, phase = unpack_('>I4', row, 12), byte(row, 7), byte(row, 8)
  if has(bits, 64) and fails(bits, state) then
    local o = node(r, owner)
    if o and o.state == EXPANDED and not has(o.mode, CLOSING) and has_turn(r, o, x.i, phase) then
      close(r, o)
    end
  end
  if unpack_('>I4', row, 20) > 0 then
    spread(r, x.i, state == FAILED and has(bits, 8) and PARDONED or state, culprit)
  end
  if has(x.flags, 32) then
    local more = more_of(row)
    if more and more.edges > 0 then spread(r, x.i, LENIENT, NONE) end
    if not waited and not has(x.flags, 2) and more and #more.groups > 0 then
      spread(r, x.i, INSIDE + SKIPPED, NONE)
    end
  end
  if waited and (has(x.flags, 2) or has(x.flags, 32)) then spread(r, x.i, INSIDE + state, culprit) end
  count_owner(r, owner, x.i, phase, bits, state, culprit)
end

-- Puts a message into its queue, or among what is due later. Gives whether it is queued.
local function let_run(id, queue, priority, timed)
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
  push(id, queue, priority, front)
end

local function start(r, x)
  dirty(r, x)
  x.ready = now
  if has(x.flags, 2) then
    x.state = EXPANDED
    local row = row_of(r, x.i)
    guard(r, x, row)
    x.a, x.b, x.c, x.d, x.n = (unpack_('>I4', row, 16)), 0, 0, 0, NONE
    if has(x.flags, 16) then
      local ended
      ended, x.b, x.c, x.d, x.n = unpack_('>I4I4I4I4I4', call('HGET', r.n, 'e' .. pack('>I4', x.i)))
      x.a = x.a - ended
    end
    if x.a == 0 then end_expansion(r, x)
    else spread(r, x.i, has(x.flags, 16) and JUDGE or EXPANDED, NONE) end
  elseif has(x.flags, 4) then
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
    let_run(r.id .. pack('>I4', x.i), queue, priority, timed)
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
local INSIDE_LABEL = {[SKIPPED] = 'what it stands in was skipped', [CANCELLED] = 'what it stands in was cancelled'}

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
  if has_turn(r, o, x.i, phase_of(r, x)) then return has(o.mode, CLOSING) end
  return not may_alarm(r, o, x.i)
end

-- Ends a node that waits with what is around it, or because that does not call for it. Nothing is
-- counted in that, and no rule is looked at, so nothing along the edges between such nodes.
local function end_inside(r, x, state, culprit, why)
  if x.state ~= WAITING then return end
  dirty(r, x)
  ends = ends + 1
  x.state, x.ready = state, 0
  r.cells[#r.cells + 1] = pack('>I4', x.i)
  r.cells[#r.cells + 1] = ZERO5 .. (state == BLOCKED and blocked_cell(culprit)
    or cell_of(state, why or INSIDE_LABEL[state]))
  tell(r.id, x.i)
  if has(x.flags, 2) or has(x.flags, 32) then spread(r, x.i, INSIDE + state, culprit) end
end

-- Stops neighbours whose turn it was.
local function stop_all(r, first, count, turn)
  local ids, done = {}, {}
  for _, i in ipairs(r.done) do done[i] = true end
  for j = first, first + count - 1 do
    local x = not done[j] and node(r, j)
    if x and (turn > 0 or not has(x.flags, 64)) then
      if x.state == QUEUED then
        ids[#ids + 1] = r.id .. pack('>I4', j)
      elseif x.state == EXPANDED then
        cancel_inwards(r, x)
      elseif x.state == WAITING then
        x.ready = 0
        finish(r, x, CANCELLED, cell_of(CANCELLED, INSIDE_LABEL[CANCELLED]), ZERO5, NONE)
      end
    end
  end
  local held = holders(ids)
  for _, id in ipairs(ids) do
    if held[id] then
      mark(id, held[id])
    else
      local x = node(r, (unpack_('>I4', id, 17)))
      local settled = settled_by(id)
      if not call('ZSCORE', P .. 's', id) then leave_list(id, lane_of(r, x)) end
      finish(r, x, CANCELLED, cell_of(CANCELLED, INSIDE_LABEL[CANCELLED]), settled, NONE)
      forget(id)
    end
  end
end

-- Where a cursor's ranges begin in its node's row, and how many there are.
local function ranges_of(row, state, culprit)
  local c, rd, e = unpack_('>I4I4I4', row, 20)
  if state >= JUDGE and not (state == STOP and culprit > 0) then return body_of(row) end
  if state == EXPANDED then return 42 + 8 * (c + rd), e end
  if state < LENIENT or state == PARDONED then return 42, c end
  local more = more_of(row)
  if not more then return 42, 0 end
  if state == LENIENT then return more.lenient, more.edges end
  local group = more.groups[culprit]
  if not group then return 42, 0 end
  return group.body, group.nodes
end

-- Does what a cursor says with neighbours. `o` is the expansion that they stand in.
local function visit(r, o, state, culprit, phase, first, last)
  if state == STOP then return stop_all(r, first, last - first + 1, culprit) end
  for j = first, last do
    local x = node(r, j)
    if x then
      if state <= CANCELLED and state ~= EXPANDED then
        count(r, x, state, culprit, is_quiet(r, o, x))
      elseif state > INSIDE then
        end_inside(r, x, state - INSIDE, culprit)
      elseif x.state == WAITING then
        if state == UNCALLED then
          end_inside(r, x, SKIPPED, NONE, 'not called for')
        elseif state == LENIENT then
          count(r, x, SUCCESS, NONE, is_quiet(r, o, x))
        elseif state == PARDONED then
          local alarm = phase_of(r, x) > phase
          count(r, x, alarm and FAILED or SUCCESS, culprit, is_quiet(r, o, x))
        elseif not is_quiet(r, o, x) then
          if state == EXPANDED then
            start(r, x)
          else
            judge(r, x)
          end
        end
      end
    end
  end
end

-- Walks what ended, as far as this script's page goes; the rest stays in the list.
local function walk()
  local edges = page
  while head <= #todo and edges > 0 do
    local cursor = todo[head]
    local r, i, state, culprit, done, first_come = unpack(cursor)
    front = first_come
    local row = row_of(r, i)
    if not row or not is_whole(20, row) then head = head + 1
    else
      local at, ranges = ranges_of(row, state, culprit)
      local inner = state == EXPANDED or state == GROUP or state == JUDGE
      local o = node(r, inner and i or (unpack_('>I4', row, 12)))
      local phase = byte(row, 8)
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
          visit(r, o, state, culprit, phase, first, first + take - 1)
          edges = edges - take - (ends - before)
          cursor[5] = cursor[5] + take
          if skip + take < n or (edges <= 0 and k < ranges - 1) then whole = false break end
          skip = 0
        end
      end
      if whole then head = head + 1 end
    end
  end
  page = edges
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
  flush_left()
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
