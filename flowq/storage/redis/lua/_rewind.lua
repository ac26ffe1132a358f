-- A new generation of a run. Field 'w' of n:<run> holds how many nodes are done (4), how many ranges each
-- set has (4 each), and the ranges of what is chosen, reopened (the root among it), dropped, and of the
-- first two together; the set 'again' has the runs that have one. Stages follow each other, in pages.
-- Which set: drop, renew, reopen, count parents, count inside, set deadlines, unpark, begin, pass; 5 is
-- the root alone.
local STAGES = {3, 1, 2, 4, 2, 2, 5, 4, 2}
local UNPARKING, BEGINNING = 7, 8

-- What settled a node last, so that its deliveries never start again.
local function last_delivery(r, id)
  local delivery = record_of(id)
  local raw = call('HGET', r.v, sub(id, 17))
  return raw and math.max(delivery, (unpack_('>I4', raw))) or delivery
end

local function drop(r, j)
  local i4 = pack('>I4', j)
  if call('HDEL', r.n, i4, 'e' .. i4, 'f' .. i4, 'l' .. i4, 'm' .. i4, 'o' .. i4, 't' .. i4, 'x' .. i4) == 0 then return end
  call('HDEL', r.v, i4)
  call('SETRANGE', r.c, j * 32, string.rep('\0', 32))
  local head = call('HGET', r.n, 'r')
  call('HSET', r.n, 'r', sub(head, 1, 18) .. pack('>I4', unpack_('>I4', head, 19) - 1) .. sub(head, 23))
end

local function parents_of(row)
  local c, rd, e, p = unpack_('>I4I4I4I4', row, 20)
  return 42 + 8 * (c + rd + e), p
end

local function count_of(row, at, ranges)
  local n = 0
  for k = 0, ranges - 1 do n = n + unpack_('>I4', row, at + 8 * k + 4) end
  return n
end

-- Takes a message out of its list, if that is short; a ghost that stayed in a long one might take the
-- turn of what is queued anew.
local function leave_short_list(id, queue, priority)
  local _, _, losses = record_of(id)
  for level = priority * 2, priority * 2 + 1 do
    local key = P .. 'r:' .. queue .. ':' .. level
    if losses == 0 and call('LLEN', key) <= 4 * PAGE and not call('ZSCORE', P .. 'p:' .. queue, 'a' .. level)
      and call('LREM', key, 1, id) == 1 then
      return
    end
  end
  leave_list(id, queue, priority)
end

-- It waits for nothing any more: not for its turn, nor for a moment, a place or what is sent.
local function withdraw(r, x, id)
  if x.state ~= QUEUED and x.state ~= HELD then return end
  if has(x.flags, 4) then
    if phases().more_at(r, x).signal ~= '' then extras().end_wait(r, x, true) end
    call('ZREM', P .. 's', id)
    return
  end
  if x.state == QUEUED and call('ZREM', P .. 's', id) == 0 then leave_short_list(id, lane_of(r, x)) end
  call('ZREM', P .. 'e', id)
  if has(x.flags, 32) then limits().leave(r, x) end
end

local function renew(r, j)
  local x = node(r, j)
  if not x or not row_of(r, j) then return end
  if parks().is(r, j) then parks().forget(r, j) end
  local i4, row = pack('>I4', j), row_of(r, j)
  local id = r.id .. i4
  local delivery = last_delivery(r, id)
  withdraw(r, x, id)
  if x.lane == 255 and has(x.flags, 2) then -- it had become an expansion
    local was = call('HGET', r.n, 'o' .. i4)
    if was then
      alongs().untie(r, row)
      local bits = byte(was, 9)
      if has(bits, 4) then bits = bits - 4 end
      x.flags, x.lane, row = byte(was, 1), byte(was, 2), sub(was, 3, 8) .. string.char(bits) .. sub(was, 10)
      call('HSET', r.n, i4, row)
      call('HDEL', r.n, 'o' .. i4)
      r.rows[j] = row
    else
      x.flags = x.flags - 2 -- what followed its failure made it one
    end
  end
  if has(x.flags, 16) then
    x.flags = x.flags - 16
    call('HDEL', r.n, 'e' .. i4)
  end
  call('HDEL', r.v, i4)
  call('HDEL', P .. 'h', id)
  if byte(row, 6) == 0 then remember(id, delivery, 0, 0, 0, 0) end
  x.n = count_of(row, parents_of(row))
  x.state, x.gen, x.ready = WAITING, (x.gen + 1) % 256, 0
  x.mode = has(byte(row, 5), 128) and 1 or 0
  x.a, x.b, x.c, x.d = 0, 0, 0, 0
  x.more, x.places, x.limits = nil, nil, nil
  extras().clear(r, j)
  dirty(r, x)
end

-- One that had ended in a body with so many places waits for one; so does one that had ended in such a
-- one, and begins in it.
local function reopen(r, j)
  local x = node(r, j)
  if not x or not row_of(r, j) then return end
  if parks().is(r, j) then parks().forget(r, j) end
  local row = row_of(r, j)
  local o = j > 0 and node(r, (unpack_('>I4', row, 12)))
  local asks = o and x.state >= SUCCESS
    and (o.state == WAITING or byte(row, 8) == 0 and phases().more_at(r, o).most > 0)
  local id = r.id .. pack('>I4', j)
  if x.lane == 255 then
    local raw = call('HGET', r.v, sub(id, 17))
    if raw and sub(raw, 1, 5) ~= ZERO5 then
      local delivered, how = settlement(raw)
      remember(id, delivered, 0, 0, how, 0)
    end
  end
  if j > 0 then x.gen = (x.gen + 1) % 256 end
  x.state, x.mode, x.a, x.b, x.c, x.d, x.n = EXPANDED, 0, 0, 0, 0, 0, NONE
  x.places = nil
  if asks then x.state, x.ready, x.n = WAITING, 0, count_of(row, parents_of(row)) end
  extras().clear(r, j)
  call('HDEL', r.v, sub(id, 17))
  dirty(r, x)
end

local function is_among(row, at, ranges, i)
  for k = 0, ranges - 1 do
    local first, n = unpack_('>I4I4', row, at + 8 * k)
    if i >= first and i < first + n then return true end
  end
  return false
end

local function is_lenient(row, child)
  local more = phases().more_of(row)
  return more and is_among(row, more.lenient, more.edges, child)
end

local function count_parents(r, j)
  local x, row = node(r, j), row_of(r, j)
  if not x or not row or x.state ~= WAITING then return end
  if alongs().goes(r, node(r, (unpack_('>I4', row, 12))), x) then return end
  local later, race = byte(row, 8) > 0, phases().is_race(r, x)
  local more = phases().more_at(r, x)
  local at, ranges = parents_of(row)
  for k = 0, ranges - 1 do
    local first, n = unpack_('>I4I4', row, at + 8 * k)
    for from = first, first + n - 1, PAGE do
      read_nodes(r, from, math.min(PAGE, first + n - from))
    end
    for p = first, first + n - 1 do
      local parent = node(r, p)
      local state = parent and parent.state or WAITING
      local begun = state > WAITING and more.follows > 0 and has(parent.flags, 2) and parent.ready > 0
        and is_among(row, more.followed, more.follows, p)
      if state == SUCCESS or begun then
        x.a = x.a + 1
      elseif state > SUCCESS then
        local above = row_of(r, p)
        local soft = state == FAILED and has(byte(above, 7), 8) and not (later and byte(above, 8) == 0) and not race
        if soft or is_lenient(above, j) then x.a = x.a + 1
        elseif state == SKIPPED then x.c = x.c + 1
        elseif state == CANCELLED then x.d = x.d + 1
        else
          x.b = x.b + 1
          if x.ready == 0 then x.ready = alongs().blame_of(r, p) + 1 end
        end
      end
    end
  end
  dirty(r, x)
end

local function count_inside(r, j)
  local x, row = node(r, j), row_of(r, j)
  if not x or not row then return end
  local at, ranges = phases().body_of(row)
  local need, under = extras().need_of(r, x), 0
  local waits = x.state == WAITING -- its own record counts its parents
  local a, b, skipped, d, blame = 0, 0, 0, 0, NONE
  for k = 0, ranges - 1 do
    local first, n = unpack_('>I4I4', row, at + 8 * k)
    for from = first, first + n - 1, PAGE do
      read_nodes(r, from, math.min(PAGE, first + n - from))
    end
    for i = first, first + n - 1 do
      local inner = node(r, i)
      if inner and not has(inner.flags, 64) then
        local state = inner.state
        if state < SUCCESS then
          a = a + 1
          if state > WAITING then under = under + 1 end
        elseif state == SUCCESS then
          if need > 0 then d = d + 1 end
        else
          local bits = byte(row_of(r, i), 7)
          if fails(bits, state) then
            b = b + 1
            if blame == NONE then blame = alongs().blame_of(r, i) end
          elseif state == CANCELLED then
            if not has(bits, 1) and need == 0 then d = d + 1 end
          elseif state == SKIPPED and has(bits, 2) then
            skipped = skipped + 1
          end
        end
      end
    end
  end
  if waits then
    local ended = unpack_('>I4', row, 16) - a
    call('HSET', r.n, 'e' .. pack('>I4', j), pack('>I4I4I4I4I4', ended, b, skipped, d, blame))
    if not has(x.flags, 16) then x.flags = x.flags + 16 end
  else
    x.a, x.b, x.c, x.d, x.n = a, b, skipped, d, blame
  end
  if under > 0 and extras().most_of(r, x) > 0 then extras().places_of(r, x)[1] = under end
  dirty(r, x)
end

local function begin(r, j)
  local x, row = node(r, j), row_of(r, j)
  if not x or not row or x.state ~= WAITING then return end
  local o = node(r, (unpack_('>I4', row, 12)))
  if not is_quiet(r, o, x) then extras().weigh(r, o, x) end
end

-- Behind all counts, or what passes meanwhile would end something in which not all is counted.
local function set_deadline(r, j)
  local x = node(r, j)
  if x and x.state == EXPANDED and row_of(r, j) then extras().set_deadline(r, x) end
end

local function unpark(r, _, left)
  local _, all = parks().take_back(r, left)
  return all
end

-- Lets an expansion go on in which nothing is unfinished, or there is room.
local function pass(r, j)
  local x = node(r, j)
  if not x or x.state ~= EXPANDED or not row_of(r, j) then return end
  if extras().most_of(r, x) > 0 then spread(r, j, FILL, NONE) end
  if x.a == 0 and not parks().is(r, j) then end_expansion(r, x) end
end

local DO = {drop, renew, reopen, count_parents, count_inside, set_deadline, unpark, begin, pass}

-- Whether a run that goes on is in a state that these may be chosen in, and these be opened.
local function may_begin(r, chosen, opened)
  local ids = {}
  local function all(ranges, f)
    for at = 1, #ranges, 8 do
      local first, count = unpack_('>I4I4', ranges, at)
      for from = first, first + count - 1, MANY do
        local n = math.min(MANY, first + count - from)
        local raw = call('GETRANGE', r.c, from * 32, (from + n) * 32 - 1)
        for k = 0, #raw / 32 - 1 do
          if not f(from + k, byte(raw, 32 * k + 1), (unpack_('>H', raw, 32 * k + 31))) then return false end
        end
      end
    end
    return true
  end
  local function is_over(i) return call('HEXISTS', r.n, 'p' .. pack('>I4', i)) == 1 end
  local function is_idle(i, state)
    if state == QUEUED then ids[#ids + 1] = r.id .. pack('>I4', i) end
    return state ~= EXPANDED or is_over(i)
  end
  local function may_open(i, state, mode)
    return state >= SUCCESS or is_over(i) or state == EXPANDED and mode < PASSED and not has(mode, CLOSING)
  end
  return all(chosen, is_idle) and all(opened, may_open) and next(phases().holders(ids)) == nil
end

-- Does something with a node, but not where a row is cut short: what is beside that goes on.
local function attempt(f, r, j, left)
  local ok, a = pcall(f, r, j, left)
  if ok then return a end
  local row = row_of(r, j)
  if not row or is_whole(20, row) then error(a) end
end

-- Does one page; gives whether there is more.
local function rewind_page(r)
  local raw = call('HGET', r.n, 'w')
  if not raw then
    call('SREM', P .. 'again', r.id)
    return false
  end
  local done = unpack_('>I4', raw)
  local sets, at = {[5] = {{0, 1}, size = 1}}, 21
  for s = 1, 4 do
    local n = unpack_('>I4', raw, 1 + 4 * s)
    local set = {size = 0}
    for k = 1, n do
      local first, count = unpack_('>I4I4', raw, at)
      set[k] = {first, count}
      set.size = set.size + count
      at = at + 8
    end
    sets[s] = set
  end
  local skip, left, more = done, PAGE, false
  for stage = 1, #STAGES do
    local set = sets[STAGES[stage]]
    if skip >= set.size then
      skip = skip - set.size
    else
      more = more or stage == BEGINNING and head <= #todo -- places that were left are given first
      for _, range in ipairs(set) do
        local first, count = range[1], range[2]
        if more then break end
        if skip >= count then
          skip = skip - count
        else
          local take = math.min(count - skip, left)
          if take > 1 then read_nodes(r, first + skip, take) end
          for j = first + skip, first + skip + take - 1 do
            if attempt(DO[stage], r, j, left) == false and stage == UNPARKING then take, more = 0, true end
          end
          done, left = done + take, left - take
          more = more or skip + take < count or left == 0
          skip = 0
        end
      end
      if more then break end
    end
  end
  if r.parked then parks().write(r) end
  if more then
    call('HSET', r.n, 'w', pack('>I4', done) .. sub(raw, 5))
  else
    call('HDEL', r.n, 'w')
    call('SREM', P .. 'again', r.id)
  end
  return more
end

-- Begins a new generation; the sets are packed as field 'w' has them.
local function open_generation(r, root, generation, chosen, opened, dropped, weighed)
  if root.state >= SUCCESS then
    for _, key in ipairs({r.c, r.n, r.v}) do call('PERSIST', key) end
    call('ZREM', P .. 'x', 'r' .. r.id)
    call('SADD', P .. 'active', r.id)
    call('HDEL', r.v, '\0\0\0\0')
  end
  local record = pack('>I4I4I4I4I4', 0, #chosen / 8, #opened / 8, #dropped / 8, #weighed / 8)
  call('HSET', r.n, 'w', record .. chosen .. opened .. dropped .. weighed)
  call('HDEL', r.n, 'R', 'E')
  call('SADD', P .. 'again', r.id)
  root.gen, root.state = generation % 256, EXPANDED
  dirty(r, root)
end
