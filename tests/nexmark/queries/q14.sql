SELECT auction, bidder, 0.908 * price AS price,
       CASE WHEN extract(second FROM date_time) >= 8 AND extract(second FROM date_time) <= 18 THEN 'dayTime'
            WHEN extract(second FROM date_time) <= 6 OR extract(second FROM date_time) >= 20 THEN 'nightTime'
            ELSE 'otherTime' END AS bid_time_type,
       length(url) - length(replace(url, 'c', '')) AS c_counts
  FROM bid
 WHERE 0.908 * price > 1000 AND 0.908 * price < 50000
