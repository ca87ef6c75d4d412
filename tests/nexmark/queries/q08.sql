SELECT p.id, p.name, p.starts
  FROM (SELECT id, name, date_bin('10 s', date_time, timestamp '2020-01-01') AS starts
          FROM person
         GROUP BY id, name, 3) AS p
  JOIN (SELECT seller, date_bin('10 s', date_time, timestamp '2020-01-01') AS starts
          FROM auction
         GROUP BY seller, 2) AS a
    ON p.id = a.seller AND p.starts = a.starts
