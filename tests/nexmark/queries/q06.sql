SELECT seller, date_time, auction,
       avg(final) OVER (PARTITION BY seller ORDER BY date_time, auction ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS average
  FROM (SELECT a.seller, a.id AS auction, a.expires AS date_time, max(b.price) AS final
          FROM auction AS a
          JOIN bid AS b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
         GROUP BY a.seller, a.id, a.expires) AS closed
