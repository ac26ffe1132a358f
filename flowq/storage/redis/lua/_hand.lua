-- Handing out: what is due is queued, then the best of the queues asked for is popped.
local function queue_one(id, row)
  if #id == 20 then run_of(sub(id, 1, 16)).moved = true end
  if not may_queue(id, row) then return end
  local raw = call('HGET', P .. 'd', id)
  local queue, priority = queue_of(id, row)
  push(id, queue, priority, raw and true or false, raw and byte(raw, 9) > 0)
end

-- Joins that have slept and expansions that are overdue are ended, with a page of what that lets go on.
local function queue_due(limit)
  local ids = call('ZRANGE', P .. 's', '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  local gone, slept = {}, {}
  flush_lines()
  for _, id in ipairs(ids) do
    local row = #id < 21 and body_row(id)
    local sleeps = #id == 21 or row and #id == 20 and byte(row, 6) == 2
    if not sleeps or #slept < PAGE / 2 then
      gone[#gone + 1] = id
      if sleeps and row and not is_whole(20, row) then end_broken(id)
      elseif sleeps then slept[#slept + 1] = id
      elseif row then try(id, queue_one, id, row) end
    end
  end
  many('ZREM', P .. 's', gone)
  flush_lines(true)
  if #slept > 0 then extras().wake_up(slept) end
end

-- Takes back what sessions past their deadline held: at most 10 sessions, 100 messages of each.
local function take_back()
  local dead = call('ZRANGE', P .. 'L', '-inf', now, 'BYSCORE', 'LIMIT', 0, 10)
  for _, session in ipairs(dead) do
    local w = P .. 'w:' .. session
    local who = who_of(session)
    local flat, all
    if call('HLEN', w) <= 102 then
      flat, all = call('HGETALL', w), true
    else
      flat = call('HRANDFIELD', w, 102, 'WITHVALUES')
    end
    local leases, ids = {}, {}
    for k = 1, #flat, 2 do
      if #flat[k] > 1 then
        ids[#ids + 1] = flat[k]
        leases[flat[k]] = flat[k + 1]
      end
    end
    table.sort(ids)
    for _, id in ipairs(ids) do
      try(id, lose, id, leases[id], session, who, true, "the session's lease ran out")
    end
    if all then drop_session(session) else call('HDEL', w, unpack(ids)) end
  end
end

-- The lists of a queue, best first, and how many ghosts they hold.
local function lists_of(queue, place, into)
  local members = call('ZREVRANGE', P .. 'p:' .. queue, 0, -1)
  if #members == 0 then return 0 end
  for _, member in ipairs(members) do
    local alone = byte(member) == 97
    local level = tonumber(alone and sub(member, 2) or member)
    into[#into + 1] = {priority = math.floor(level / 2), place = place, level = level,
                       member = member, queue = queue, alone = alone,
                       key = P .. 'r:' .. queue .. ':' .. member}
    -- sorted, it comes just before the list of its level
    local before = into[#into - 1]
    if before and before.alone and before.queue == queue and before.level == level then
      into[#into].counted = 'n' .. level
    end
  end
  return tonumber(call('HGET', P .. 'g:' .. queue, '') or 0)
end

local function better(a, b)
  if a.priority ~= b.priority then return a.priority > b.priority end
  if a.place ~= b.place then return a.place < b.place end
  if a.level ~= b.level then return a.level > b.level end
  return a.alone and not b.alone
end

-- How many entries a list has; what is known is not asked again.
local function size_of(list)
  if not list.size then list.size = call('LLEN', list.key) end
  return list.size
end

-- Puts ids back where they were popped from, from the k-th on.
local function put_back(list, ids, k)
  if k > #ids then return end
  local back = {}
  for j = k, #ids do
    back[#back + 1] = list.alone and pack('>i4', popped_of(list.queue, list.level)) .. ids[j] or ids[j]
  end
  list.size = put_first(list.queue, list.member, list.level, back)
  call('ZADD', P .. 'p:' .. list.queue, list.level, list.member)
end

-- Which of these ids, popped from a list of a queue, are no ghosts; gives how many are, too.
local function real_of(queue, ids)
  local g = P .. 'g:' .. queue
  local counts, left, real, gone, dead = call('HMGET', g, unpack(ids)), {}, {}, {}, 0
  for k, id in ipairs(ids) do
    local old = left[id] or tonumber(counts[k] or 0)
    if old > 0 then
      left[id] = old - 1
      dead = dead + 1
    else
      real[#real + 1] = id
    end
  end
  if dead == 0 then return real, 0 end
  for id, count in pairs(left) do
    if count > 0 then call('HSET', g, id, count) else gone[#gone + 1] = id end
  end
  if #gone > 0 then call('HDEL', g, unpack(gone)) end
  if call('HINCRBY', g, '', -dead) <= 0 then call('HDEL', g, '') end
  return real, dead
end

-- Pops up to n ids of a list, ghosts left out; gives them, and whether the list is empty. Where it finds
-- ghosts, there are many: it takes more at once, and puts back what is too much.
local function pop(list, n, ghosts)
  local out, more = {}, 0
  for _ = 1, 20 do
    local asked = n - #out + more
    local ids = call('LPOP', list.key, asked)
    if not ids then
      list.size = 0
      call('ZREM', P .. 'p:' .. list.queue, list.member)
      return out, true
    end
    if #ids < asked then list.size = 0 elseif list.size then list.size = list.size - #ids end
    if list.alone then
      for k = 1, #ids do ids[k] = sub(ids[k], 5) end
      if #ids < asked then call('HDEL', P .. 'g:' .. list.queue, 'n' .. list.level) end
    elseif list.counted then
      call('HINCRBY', P .. 'g:' .. list.queue, list.counted, #ids)
    end
    if ghosts == 0 then return ids, #ids < asked end
    local real, dead = real_of(list.queue, ids)
    local free = n - #out
    for k = 1, math.min(free, #real) do out[#out + 1] = real[k] end
    put_back(list, real, free + 1)
    if #out >= n then return out, false end
    if dead > 0 and not list.alone then more = math.min(4 * more + 16, 400) end
  end
  return out, false
end

-- Rows of ids, in their order; false where the message is gone.
local function rows_of(ids)
  if #ids[1] == 16 and #ids[#ids] == 16 then
    local rows = call('HMGET', P .. 'm', unpack(ids))
    local single = true
    for k = 1, #ids do if #ids[k] ~= 16 then single = false break end end
    if single then return rows end
  end
  local rows = {}
  local k = 1
  while k <= #ids do -- neighbours of one run, or tasks alone, in one read
    local id = ids[k]
    local last = k
    if #id == 16 then
      while ids[last + 1] and #ids[last + 1] == 16 do last = last + 1 end
      local got = call('HMGET', P .. 'm', unpack(ids, k, last))
      for j = 1, #got do rows[k + j - 1] = got[j] end
    else
      local run = sub(id, 1, 16)
      local fields = {sub(id, 17)}
      while ids[last + 1] and #ids[last + 1] == 20 and sub(ids[last + 1], 1, 16) == run do
        last = last + 1
        fields[#fields + 1] = sub(ids[last], 17)
      end
      local got = call('HMGET', P .. 'n:' .. run, unpack(fields))
      for j = 1, #got do rows[k + j - 1] = got[j] end
    end
    k = last + 1
  end
  return rows
end

-- Whether the first of an "a" list goes before the list of its level: nothing is before it but ghosts.
local function is_turn_of(list, level, ghosts)
  local first = call('LINDEX', list.key, 0)
  local before = first and unpack_('>i4', first) - popped_of(list.queue, list.level) or 0
  if before <= 0 then return true end
  if before > ghosts or before > MANY then return false end
  local ids, left = call('LRANGE', level.key, 0, before - 1), {}
  if #ids == 0 then return true end
  local counts = call('HMGET', P .. 'g:' .. list.queue, unpack(ids))
  for k, id in ipairs(ids) do
    left[id] = (left[id] or tonumber(counts[k] or 0)) - 1
    if left[id] < 0 then return false end
  end
  return true
end

-- Moves messages of one list to the chosen; gives whether the choice ends there.
local function take(list, ghosts, want, chosen)
  local empty
  while not empty and #chosen < want do
    local ids
    ids, empty = pop(list, list.alone and 1 or want - #chosen, ghosts)
    local rows = #ids > 0 and rows_of(ids)
    for k, id in ipairs(ids) do
      local row = rows[k]
      if row then
        local only = has(byte(row, 5) or 0, 2)
        if only and #chosen > 0 then
          put_back(list, ids, k)
          return true
        end
        chosen[#chosen + 1] = {id, row, list}
        if only or list.alone then
          put_back(list, ids, k + 1)
          return true
        end
      end
    end
  end
  return #chosen == want
end

-- Pops up to `want` messages in the order of hand-out: {id, row, list}. One that wants to be alone in
-- its step ends the choice, as does one that lost a worker; that is for `idle` sessions only.
local function choose(lists, ghosts, want, idle)
  local chosen = {}
  for k, list in ipairs(lists) do
    local over = false
    if not list.alone then
      over = take(list, ghosts[list.queue], want, chosen)
    elseif #chosen == 0 and idle() then
      local level = lists[k + 1]
      if level and level.counted and level.level == list.level and level.queue == list.queue
        and not is_turn_of(list, level, ghosts[list.queue]) then
        over = take(level, ghosts[list.queue], want, chosen)
      end
      if #chosen == 0 then over = take(list, ghosts[list.queue], want, chosen) end
    end
    if over then break end
  end
  return chosen
end

-- Holds those among the chosen whose run is `paused`, if some run is, fails what expired, and, where pages
-- are left, stops what they would; then the rest goes back, since what those let run may be better. What
-- lies behind as many good ones as are wanted is not looked at.
local function fail_late(chosen, want, left, paused)
  local late, good = 0, {}
  local function is_paused(id)
    local run = sub(id, 1, 16)
    if paused[run] == nil then paused[run] = call('SISMEMBER', P .. 'paused', run) == 1 end
    return paused[run]
  end
  for k, one in ipairs(chosen) do
    local till = #good < want and has(byte(one[2], 5) or 0, 1) and call('ZSCORE', P .. 'e', one[1])
    if #good >= want then
      good[#good + 1] = one
    elseif paused and #one[1] == 20 and is_paused(one[1]) and is_whole(20, one[2]) then
      late = late + 1
      extras().hold(one[1])
    elseif till and tonumber(till) <= now then
      late = late + 1
      try(one[1], expire, one[1], one[2])
    elseif left and phases().end_stopped(one[1]) then
      late = late + 1
    else
      good[#good + 1] = one
    end
  end
  if late > 0 then
    for k = #good, 1, -1 do put_back(good[k][3], {good[k][1]}, 1) end
    walk()
    leave()
  end
  return late
end

-- The cells that a node reads, as far as the answer's bytes go: {index, cell, ...}, whether all.
local function values_of(id, row, budget)
  local c, reads = unpack_('>I4I4', row, 20)
  local v = P .. 'v:' .. sub(id, 1, 16)
  local out, at, given = {}, 42 + 8 * c, nil
  if has(byte(row, 5), 32) then
    local r, more = run_of(sub(id, 1, 16)), phases().more_of(row)
    given = {}
    for k = 0, more.follows - 1 do
      local first, n = unpack_('>I4I4', row, more.followed + 8 * k)
      for j = first, first + n - 1 do
        local above = row_of(r, j) or ''
        if is_whole(20, above) then
          local cc, rd, e, p, v = unpack_('>I4I4I4I4I4', above, 20)
          local from = 42 + 8 * (cc + rd + e + p)
          given[j] = true
          out[#out + 1] = j
          out[#out + 1] = pack('>BI4I8I8', EXPANDED + TEMPLATE, 0, 0, 0) .. sub(above, from, from + v - 1)
        end
      end
    end
  end
  for k = 0, reads - 1 do
    local first, n = unpack_('>I4I4', row, at + 8 * k)
    for from = first, first + n - 1, 250 do
      local fields = {}
      for j = from, math.min(from + 249, first + n - 1) do fields[#fields + 1] = pack('>I4', j) end
      local got = call('HMGET', v, unpack(fields))
      for j = 1, #fields do
        local cell = got[j]
        if cell and not (given and given[from + j - 1]) then
          if #cell > budget[1] and budget[2] then return out, false end
          budget[1] = budget[1] - #cell
          budget[2] = true
          out[#out + 1] = from + j - 1
          out[#out + 1] = sub(cell, 6)
        end
      end
    end
  end
  return out, true
end

local function lease_of(id, row, delivery, alone)
  local flags = alone and 64 or 0
  if #id == 16 then
    if has(byte(row, 5), 8) then
      return pack('>I4B', delivery, flags + 32)
    end
    return pack('>I4B', delivery, flags)
  end
  local bits, owner, c = byte(row, 7), sub(row, 12, 15), (unpack_('>I4', row, 20))
  if byte(row, 8) > 0 or has(byte(row, 5), 32) or has(bits, 16) or has(bits, 4) then flags = flags + 128 end
  local edges, small = '', c <= 4
  if small then
    edges = sub(row, 42, 41 + 8 * c)
    for k = 1, #edges, 8 do
      if unpack_('>I4', edges, k + 4) > 8 then small = false end
    end
  end
  if small then
    return pack('>I4BI6B', delivery, flags, now, bits) .. owner .. edges
  end
  return pack('>I4BI6B', delivery, flags + 32, now, bits) .. owner
end
