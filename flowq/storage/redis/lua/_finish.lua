-- How ends spread, as storage/base.py tells it: in the children, page by page, and in the owner.
-- A cursor is {run, node, state, culprit, edges done, front}; state EXPANDED starts the node's entries,
-- JUDGE looks at all in its body, where something ended before it began, INSIDE + state ends all in
-- the body of an expansion as that ended, which never began.
local todo, head = {}, 1
local ZERO5 = '\0\0\0\0\0'
local front = true -- what this script starts goes before what was enqueued
local JUDGE, INSIDE = 15, 16
-- Edges that this script may still walk; one whose node ends costs two, as it takes the time of three.
local page = PAGE
local AT_ONCE = 100
local ends = 0

local finish

local function spread(r, i, state, culprit)
  todo[#todo + 1] = {r, i, state, culprit, 0, front}
end

-- What settled a message last; forgets it.
local function settled_before(id)
  local raw = call('HGET', P .. 'd', id)
  if not raw then return ZERO5 end
  call('HDEL', P .. 'd', id)
  call('HDEL', P .. 'h', id)
  return sub(raw, 1, 4) .. '\1'
end

local function end_expansion(r, x)
  local state, kind, body = SUCCESS, SUCCESS + TEMPLATE, ''
  if x.b > 0 then
    state, kind, body = FAILED, FAILED + CULPRIT, pack('>I4', x.n)
  elseif x.d > 0 then
    state, kind, body = CANCELLED, CANCELLED, 'what its value names was cancelled'
  elseif x.c > 0 then
    state, kind, body = SKIPPED, SKIPPED, 'what its value names was skipped'
  else
    local row = row_of(r, x.i)
    local c, rd, e, p, v = unpack_('>I4I4I4I4I4', row, 20)
    local at = 42 + 8 * (c + rd + e + p)
    body = sub(row, at, at + v - 1)
  end
  local settled = ZERO5
  if x.lane == 255 then settled = settled_before(r.id .. pack('>I4', x.i)) end -- it was a task
  finish(r, x, state, cell_of(kind, body), settled, x.n)
end

-- An inner node ended (was cancelled) before its expansion began, whose record still counts parents:
-- ended, failures, skips, cancels and culprit lie beside its row until it begins.
local function end_early(r, o, bits, state, culprit)
  local field = 'e' .. pack('>I4', o.i)
  local raw = call('HGET', r.n, field)
  local ended, b, c, d, blame = 0, 0, 0, 0, NONE
  if raw then ended, b, c, d, blame = unpack_('>I4I4I4I4I4', raw) end
  if state == SKIPPED then
    if has(bits, 2) then c = c + 1 end
  elseif state ~= SUCCESS and not has(bits, 1) then
    if state == CANCELLED then d = d + 1
    else
      b = b + 1
      if blame == NONE then blame = culprit end
    end
  end
  call('HSET', r.n, field, pack('>I4I4I4I4I4', ended + 1, b, c, d, blame))
  if not has(o.flags, 16) then
    o.flags = o.flags + 16
    dirty(r, o)
  end
end

-- Counts an end in the expansion around it.
local function count_owner(r, owner, bits, state, culprit)
  local o = node(r, owner)
  if not o or o.state >= SUCCESS then return end
  if o.state == WAITING then return end_early(r, o, bits, state, culprit) end
  dirty(r, o)
  if o.a > 0 then o.a = o.a - 1 end
  if state ~= SUCCESS then
    if state == SKIPPED then
      if has(bits, 2) then o.c = o.c + 1 end
    elseif not has(bits, 1) then
      if state == CANCELLED then
        o.d = o.d + 1
      else
        o.b = o.b + 1
        if o.n == NONE then o.n = culprit end
      end
    end
  end
  if o.a == 0 and o.state == EXPANDED then end_expansion(r, o) end
end

-- Ends a node that has not ended. owner and bits are taken from its row unless given.
function finish(r, x, state, cell, settled, culprit, owner, bits)
  dirty(r, x)
  local unbegun = x.state == WAITING and has(x.flags, 2)
  ends = ends + 1
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
  if not owner then
    local row = row_of(r, x.i)
    owner, bits = unpack_('>I4', row, 12), byte(row, 7)
  end
  spread(r, x.i, state, culprit)
  if unbegun then spread(r, x.i, INSIDE + state, culprit) end
  count_owner(r, owner, bits, state, culprit)
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
  local flags = x.flags
  if has(flags, 2) then
    x.state = EXPANDED
    local row = row_of(r, x.i)
    x.a, x.b, x.c, x.d, x.n = (unpack_('>I4', row, 16)), 0, 0, 0, NONE
    if has(flags, 16) then
      local ended
      ended, x.b, x.c, x.d, x.n = unpack_('>I4I4I4I4I4', call('HGET', r.n, 'e' .. pack('>I4', x.i)))
      x.a = x.a - ended
    end
    if x.a == 0 then end_expansion(r, x)
    else spread(r, x.i, has(flags, 16) and JUDGE or EXPANDED, NONE) end
  elseif has(flags, 4) then
    finish(r, x, SUCCESS, cell_of(SUCCESS + EMPTY, ''), ZERO5, NONE)
  else
    x.state = QUEUED
    local queue, priority = lane_of(r, x)
    local timed
    if has(flags, 8) then
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

-- A parent of a node ended.
local function count(r, x, state, culprit, unbegun)
  if x.state ~= WAITING then return end
  dirty(r, x)
  if state == SUCCESS then
    x.a = x.a + 1
    if x.flags % 2 == 0 then -- the common rule
      if x.a == x.n then return start(r, x) end
      if x.b + x.c + x.d == 0 then return end
    end
  elseif state == SKIPPED then x.c = x.c + 1
  elseif state == CANCELLED then x.d = x.d + 1
  else
    x.b = x.b + 1
    if x.ready == 0 then x.ready = culprit + 1 end
  end
  if not unbegun then judge(r, x) end
end

-- Whether what stands beside a node may not become ready yet: only a cancel ends a node before the
-- expansion around it has begun.
local function is_early(r, row, state)
  if state ~= CANCELLED then return false end
  local o = node(r, (unpack_('>I4', row, 12)))
  return o and o.state ~= EXPANDED
end

-- Ends a node with the expansion that it stands in, which never began. That has ended, so nothing is
-- counted in it, and no rule is looked at, so nothing along the edges between such nodes.
local function end_inside(r, x, state, culprit)
  if x.state ~= WAITING then return end
  dirty(r, x)
  ends = ends + 1
  x.state, x.ready = state, 0
  r.cells[#r.cells + 1] = pack('>I4', x.i)
  r.cells[#r.cells + 1] = ZERO5 .. (state == BLOCKED and blocked_cell(culprit)
    or cell_of(state, INSIDE_LABEL[state]))
  tell(r.id, x.i)
  if has(x.flags, 2) then spread(r, x.i, INSIDE + state, culprit) end
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
      local c, rd, e = unpack_('>I4I4I4', row, 20)
      local at, ranges = 42, c
      local unbegun = is_early(r, row, state)
      if state == EXPANDED then at, ranges = 42 + 8 * (c + rd), e
      elseif state >= JUDGE then at, ranges = body_of(row) end
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
          for j = first, first + take - 1 do
            local x = node(r, j)
            if x then
              if state > INSIDE then end_inside(r, x, state - INSIDE, culprit)
              elseif state == JUDGE then
                if x.state == WAITING then judge(r, x) end
              elseif state ~= EXPANDED then count(r, x, state, culprit, unbegun)
              elseif x.state == WAITING then start(r, x) end
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
  flush_ended()
  flush_forgotten()
end

local function leave()
  local left = {}
  for k = head, #todo do
    local c = todo[k]
    left[#left + 1] = c[1].id .. pack('>I4BI4I4', c[2], c[6] and c[3] or c[3] + 128, c[4], c[5])
  end
  todo, head = {}, 1
  if #left > 0 then many('RPUSH', P .. 'todo', left) end
  flush()
  return #left
end
