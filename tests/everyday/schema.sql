-- What the applications of a small company keep: a shop, its warehouse, a product with teams and projects, sensors.

CREATE TABLE tenants (
    id         int PRIMARY KEY,
    name       text NOT NULL,
    plan       text NOT NULL,
    deleted_at timestamptz
);
CREATE TABLE users (
    id           int PRIMARY KEY,
    tenant_id    int NOT NULL REFERENCES tenants,
    manager_id   int,
    name         text NOT NULL,
    role         text NOT NULL,
    signed_up_at timestamptz NOT NULL,
    deleted_at   timestamptz
);
CREATE INDEX ON users (tenant_id);
CREATE INDEX ON users (manager_id);
CREATE TABLE customers (
    id        int PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES tenants,
    name      text NOT NULL,
    country   text,
    segment   text NOT NULL
);
CREATE INDEX ON customers (tenant_id);
CREATE TABLE products (
    id          int PRIMARY KEY,
    name        text NOT NULL,
    category_id int NOT NULL,
    price       numeric(10, 2) NOT NULL,
    reorder_at  int NOT NULL,
    tags        text[] NOT NULL,
    attributes  jsonb NOT NULL
);
CREATE INDEX ON products (category_id);
CREATE TABLE categories (
    id        int PRIMARY KEY,
    parent_id int,
    name      text NOT NULL
);
CREATE INDEX ON categories (parent_id);
CREATE TABLE orders (
    id          int PRIMARY KEY,
    customer_id int NOT NULL,
    status      text NOT NULL,
    placed_at   timestamptz NOT NULL,
    total       numeric(12, 2) NOT NULL
);
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON orders (placed_at);
CREATE TABLE order_items (
    order_id   int NOT NULL,
    line       int NOT NULL,
    product_id int NOT NULL,
    quantity   int NOT NULL,
    price      numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line)
);
CREATE INDEX ON order_items (product_id);
CREATE TABLE payments (
    id       int PRIMARY KEY,
    order_id int NOT NULL,
    amount   numeric(12, 2) NOT NULL,
    method   text
);
CREATE INDEX ON payments (order_id);
CREATE TABLE stock_moves (
    id           int PRIMARY KEY,
    product_id   int NOT NULL,
    warehouse_id int NOT NULL,
    quantity     int NOT NULL,
    moved_at     timestamptz NOT NULL
);
CREATE INDEX ON stock_moves (product_id, warehouse_id);
CREATE TABLE price_history (
    product_id int NOT NULL,
    price      numeric(10, 2) NOT NULL,
    valid      tstzrange NOT NULL,
    PRIMARY KEY (product_id, valid)
);
CREATE INDEX ON price_history USING gist (valid);
CREATE TABLE events (
    id      int PRIMARY KEY,
    user_id int NOT NULL,
    kind    text NOT NULL,
    at      timestamptz NOT NULL,
    payload jsonb NOT NULL
);
CREATE INDEX ON events (user_id);
CREATE INDEX ON events (at);
-- Without a key.
CREATE TABLE readings (
    sensor_id int NOT NULL,
    at        timestamptz NOT NULL,
    value     numeric(8, 2)
);
CREATE INDEX ON readings (sensor_id, at);
CREATE TABLE projects (
    id        int PRIMARY KEY,
    tenant_id int NOT NULL,
    owner_id  int NOT NULL,
    name      text NOT NULL,
    is_public boolean NOT NULL
);
CREATE INDEX ON projects (owner_id);
CREATE TABLE memberships (
    team_id int NOT NULL,
    user_id int NOT NULL,
    PRIMARY KEY (team_id, user_id)
);
CREATE INDEX ON memberships (user_id);
CREATE TABLE team_projects (
    team_id    int NOT NULL,
    project_id int NOT NULL,
    PRIMARY KEY (team_id, project_id)
);
CREATE INDEX ON team_projects (project_id);
CREATE TABLE tickets (
    id          int PRIMARY KEY,
    project_id  int NOT NULL,
    assignee_id int,
    priority    int NOT NULL,
    status      text NOT NULL,
    title       text NOT NULL,
    opened_at   timestamptz NOT NULL,
    closed_at   timestamptz
);
CREATE INDEX ON tickets (project_id);
CREATE INDEX ON tickets (assignee_id);
CREATE INDEX ON tickets (opened_at);
CREATE TABLE scores (
    player_id int NOT NULL,
    game_id   int NOT NULL,
    points    int NOT NULL,
    played_at timestamptz NOT NULL
);
CREATE INDEX ON scores (player_id);
CREATE INDEX ON scores (game_id, points);
CREATE TABLE imports (
    id          int PRIMARY KEY,
    external_id text NOT NULL,
    version     int NOT NULL,
    payload     jsonb NOT NULL
);
CREATE INDEX ON imports (external_id, version);
CREATE TABLE blocked (
    customer_id int
);
CREATE TABLE components (
    part_id  int NOT NULL,
    child_id int NOT NULL,
    quantity int NOT NULL,
    PRIMARY KEY (part_id, child_id)
);
CREATE INDEX ON components (child_id);
