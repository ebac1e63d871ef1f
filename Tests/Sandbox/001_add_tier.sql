ALTER TABLE public.orders ADD COLUMN tier text;
