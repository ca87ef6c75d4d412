SELECT auction, bidder, price, channel,
       CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2'
            ELSE substring(url FROM 'channel_id=([0-9]+)') END AS channel_id
  FROM bid
 WHERE substring(url FROM 'channel_id=([0-9]+)') IS NOT NULL OR lower(channel) IN ('apple', 'google', 'facebook')
