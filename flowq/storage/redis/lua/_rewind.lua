-- A new generation of a run that has ended. Field 'w' of n:<run> holds how many nodes are done (4),
-- how many ranges each set has (4 each), and the ranges of what is chosen, reopened (the root among
-- it), dropped; the set 'again' has the runs that have one. Stages follow each other, in pages.
-- Which set: drop, renew, reopen, count parents, count inside, set deadlines, begin.
local STAGES = {3, 1, 2, 1, 2, 2, 1}

-- What settled a node last, so that its deliveries never start again.
local function last_delivery(r, x, id)
  local delivery = record_of(id)
  local raw = call('HGET', r.v, sub(id, 17))
  if raw then delivery = math.max(delivery, (unpack_('>I4', raw))) end
  if delivery > 0 or x.ready == 0 and x.gen == 0 then return delivery end
  -- one that no session settled may have been handed out too, in this generation or before: beyond any
  -- number that it can have had
  return (x.gen + 1) * 65536
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

local function renew(r, j)
  local x, row = node(r, j), row_of(r, j)
  if not x or not row then return end
  local i4 = pack('>I4', j)
  local id = r.id .. i4
  local delivery = last_delivery(r, x, id)
  if x.lane == 255 and has(x.flags, 2) then -- it had become an expansion
    local was = call('HGET', r.n, 'o' .. i4)
    if was then
      alongs().untie(r, row)
      x.flags, x.lane, row = byte(was, 1), byte(was, 2), sub(was, 3)
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
  local at, ranges = parents_of(row)
  x.n = 0
  for k = 0, ranges - 1 do x.n = x.n + unpack_('>I4', row, at + 8 * k + 4) end
  x.state, x.gen, x.ready = WAITING, (x.gen + 1) % 256, 0
  x.mode = has(byte(row, 5), 128) and 1 or 0
  x.a, x.b, x.c, x.d = 0, 0, 0, 0
  x.more, x.places = nil, nil
  extras().clear(r, j)
  dirty(r, x)
end

local function reopen(r, j)
  local x = node(r, j)
  if not x or not row_of(r, j) then return end
  local id = r.id .. pack('>I4', j)
  if x.lane == 255 then
    local raw = call('HGET', r.v, sub(id, 17))
    if raw then remember(id, (unpack_('>I4', raw)), 0, 0, 1, 0) end
  end
  if j > 0 then x.gen = (x.gen + 1) % 256 end
  x.state, x.mode, x.a, x.b, x.c, x.d, x.n = EXPANDED, 0, 0, 0, 0, 0, NONE
  x.places = nil
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
          x.a = x.a + 1
          if state > WAITING then under = under + 1 end
        elseif state == SUCCESS then
          if need > 0 then x.d = x.d + 1 end
        else
          local bits = byte(row_of(r, i), 7)
          if fails(bits, state) then
            x.b = x.b + 1
            if x.n == NONE then x.n = alongs().blame_of(r, i) end
          elseif state == CANCELLED then
            if not has(bits, 1) and need == 0 then x.d = x.d + 1 end
          elseif state == SKIPPED and has(bits, 2) then
            x.c = x.c + 1
          end
        end
      end
    end
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

local DO = {drop, renew, reopen, count_parents, count_inside, set_deadline, begin}

-- Does one page; gives whether there is more.
local function rewind_page(r)
  local raw = call('HGET', r.n, 'w')
  if not raw then
    call('SREM', P .. 'again', r.id)
    return false
  end
  local done = unpack_('>I4', raw)
  local sets, at = {}, 17
  for s = 1, 3 do
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
  local skip, left = done, PAGE
  for stage = 1, #STAGES do
    local set = sets[STAGES[stage]]
    if skip >= set.size then
      skip = skip - set.size
    else
      for _, range in ipairs(set) do
        local first, count = range[1], range[2]
        if skip >= count then
          skip = skip - count
        else
          local take = math.min(count - skip, left)
          if take > 1 then read_nodes(r, first + skip, take) end
          for j = first + skip, first + skip + take - 1 do DO[stage](r, j) end
          done, left = done + take, left - take
          if skip + take < count or left == 0 then
            call('HSET', r.n, 'w', pack('>I4', done) .. sub(raw, 5))
            return true
          end
          skip = 0
        end
      end
    end
  end
  call('HDEL', r.n, 'w')
  call('SREM', P .. 'again', r.id)
  return false
end
