-- Rates on the server: one call decides about all rules of a request, and counts it in all or none.
--
-- A bucket is a debt: microseconds until it has drained, and parts of a microsecond. With a rate of
-- R a minute one request is 60000000 / R microseconds: whole ones, and a remainder in parts of R.
-- The caller divides, so that only whole numbers below 2^53 are added here and nothing is rounded.
-- A debt is a share of a minute, so another rate than before keeps the share that is used.

local MINUTE = 60000000
local KEPT_MS_MAX = 7 * 86400000

local verb = ARGV[1]
-- Empty: the server's own time. A test's time says nothing of when the server's keys are over.
local now = tonumber(ARGV[2])
local kept_ms_min = now and KEPT_MS_MAX or 0
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end

-- Both buckets of a rule, drained until now. A clock that was set back drains nothing.
local function load(key)
    local kept = redis.call('HMGET', key, 'at', 'ru', 'rp', 'rr', 'tu', 'tp', 'tr')
    local passed = math.max(now - (tonumber(kept[1]) or now), 0)
    local function bucket(us, parts, rate)
        us, parts = (tonumber(us) or 0) - passed, tonumber(parts) or 0
        if us < 0 then
            us, parts = 0, 0
        end
        return { us = us, parts = parts, rate = tonumber(rate) or 0 }
    end
    return {
        requests = bucket(kept[2], kept[3], kept[4]),
        tokens = bucket(kept[5], kept[6], kept[7]),
    }
end

-- Kept only for as long as it makes a difference.
local function store(key, rule)
    local r, t = rule.requests, rule.tokens
    local debt = math.max(r.us, t.us)
    if debt == 0 and r.parts == 0 and t.parts == 0 then
        redis.call('DEL', key)
        return
    end
    redis.call('HSET', key, 'at', now, 'ru', r.us, 'rp', r.parts, 'rr', r.rate,
        'tu', t.us, 'tp', t.parts, 'tr', t.rate)
    local kept_ms = math.max(math.ceil(debt / 1000) + 1, kept_ms_min)
    redis.call('PEXPIRE', key, math.min(kept_ms, KEPT_MS_MAX))
end

-- Adds a cost; a negative one is given back. Parts of another rate are rounded up.
local function add(bucket, us, parts, rate)
    if bucket.rate ~= rate and bucket.parts > 0 then
        bucket.us, bucket.parts = bucket.us + 1, 0
    end
    bucket.rate = rate
    bucket.us, bucket.parts = bucket.us + us, bucket.parts + parts
    if bucket.parts >= rate then
        bucket.us, bucket.parts = bucket.us + 1, bucket.parts - rate
    elseif bucket.parts < 0 then
        bucket.us, bucket.parts = bucket.us - 1, bucket.parts + rate
    end
    if bucket.us < 0 then
        bucket.us, bucket.parts = 0, 0
    end
end

-- Microseconds by which a bucket is more than full.
local function over(bucket)
    return bucket.us - MINUTE + (bucket.parts > 0 and 1 or 0)
end

-- KEYS: buckets and holders of each rule. ARGV, behind the time: the holder, how long a place is
-- kept, and for each rule: cost of the request (us, parts, rate), of its tokens (the same), places.
-- A rate or places of -1: no bound. Answers {1, debts of all bounds in order}, or {0, rule from 1,
-- which bound (0 places, 1 requests, 2 tokens), microseconds to wait}.
if verb == 'admit' then
    local holder, kept_us = ARGV[3], tonumber(ARGV[4])
    local rules, answer = {}, { 1 }
    local function argument(rule, index)
        return tonumber(ARGV[4 + (rule - 1) * 7 + index])
    end
    for i = 1, #KEYS / 2 do
        local places = argument(i, 7)
        if places >= 0 then
            local alive = '(' .. string.format('%.0f', now)
            if redis.call('ZCOUNT', KEYS[2 * i], alive, '+inf') >= places then
                return { 0, i, 0, 0 }
            end
        end
        local rule = load(KEYS[2 * i - 1])
        for which, bucket in ipairs({ rule.requests, rule.tokens }) do
            local first = which * 3 - 2
            local rate = argument(i, first + 2)
            if rate >= 0 then
                add(bucket, argument(i, first), argument(i, first + 1), rate)
                if over(bucket) > 0 then
                    return { 0, i, which, over(bucket) }
                end
                answer[#answer + 1] = bucket.us
                answer[#answer + 1] = bucket.parts
            end
        end
        rules[i] = rule
    end
    for i, rule in ipairs(rules) do
        if argument(i, 3) >= 0 or argument(i, 6) >= 0 then
            store(KEYS[2 * i - 1], rule)
        end
        if argument(i, 7) >= 0 then
            redis.call('ZREMRANGEBYSCORE', KEYS[2 * i], '-inf', now)
            redis.call('ZADD', KEYS[2 * i], now + kept_us, holder)
            redis.call('PEXPIRE', KEYS[2 * i], math.ceil(kept_us / 1000))
        end
    end
    return answer
end

-- A request has ended. KEYS: buckets and holders of each rule. ARGV, behind the time: the holder,
-- and for each rule the tokens that it has used more than was let in (us, parts, rate; a rate of
-- -1: as many), and 1 where it held a place.
if verb == 'end' then
    for i = 1, #KEYS / 2 do
        local first = 3 + (i - 1) * 4
        local rate = tonumber(ARGV[first + 3])
        if rate >= 0 then
            local rule = load(KEYS[2 * i - 1])
            add(rule.tokens, tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]), rate)
            store(KEYS[2 * i - 1], rule)
        end
        if ARGV[first + 4] == '1' then
            redis.call('ZREM', KEYS[2 * i], ARGV[3])
        end
    end
    return 1
end

-- Those that still run. KEYS: holders of one rule. ARGV: how long a place is kept, the holders.
-- They are put in anew where the server has lost them.
if verb == 'renew' then
    local kept_us = tonumber(ARGV[3])
    for i = 4, #ARGV do
        redis.call('ZADD', KEYS[1], now + kept_us, ARGV[i])
    end
    redis.call('PEXPIRE', KEYS[1], math.ceil(kept_us / 1000))
    return 1
end

return redis.error_reply('ERR an unknown verb')
